/*
 * http_error.h
 *		What libcurl's codes say about whether a request has left.
 */
#ifndef CRM_HTTP_ERROR_H
#define CRM_HTTP_ERROR_H

#include "postgres.h"

#include <curl/curl.h>

extern bool crm_http_may_be_unsent(CURLcode code);

#endif /* CRM_HTTP_ERROR_H */
