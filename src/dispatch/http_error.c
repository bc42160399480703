/*
 * http_error.c
 *		What libcurl's codes say about whether a request has left.
 */
#include "postgres.h"

#include "dispatch/http_error.h"

/*
 * Can the transfer have ended so without a byte of the request having left? The
 * count of sent bytes must say so too: libcurl uses many of these codes for
 * later moments as well. Codes that are not listed never mean that.
 */
bool
crm_http_may_be_unsent(CURLcode code)
{
	switch (code)
	{
		/* the address or the options */
		case CURLE_UNSUPPORTED_PROTOCOL: /* also a reply that is no HTTP */
		case CURLE_FAILED_INIT:
		case CURLE_URL_MALFORMAT:
		case CURLE_NOT_BUILT_IN:
		case CURLE_BAD_FUNCTION_ARGUMENT:
		case CURLE_UNKNOWN_OPTION:
		case CURLE_OUT_OF_MEMORY: /* also in the midst of a reply */
		/* the name and the connection */
		case CURLE_COULDNT_RESOLVE_PROXY:
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_CONNECT:
		case CURLE_INTERFACE_FAILED:
		case CURLE_NO_CONNECTION_AVAILABLE:
		case CURLE_OPERATION_TIMEDOUT: /* also while waiting for a reply */
		case CURLE_SEND_ERROR:         /* also in the midst of a body */
		case CURLE_ABORTED_BY_CALLBACK:
		/* TLS before the request */
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_SSL_ENGINE_INITFAILED:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CRL_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_PEER_FAILED_VERIFICATION:
			return true;
		default:
			return false;
	}
}
