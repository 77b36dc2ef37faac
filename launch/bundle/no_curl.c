/* In a bundle in place of libcurl: the distribution's HDF5 is built with its driver for files in S3, which nothing here uses and
   which would bring libcurl and the 25 libraries behind it, 12 MiB. What it calls answers that there is no such thing. */
#include <stddef.h>

void* curl_easy_init(void) { return NULL; }
void curl_easy_cleanup(void* handle) { (void)handle; }
int curl_easy_perform(void* handle) { return (void)handle, 2; /* CURLE_FAILED_INIT */ }
int curl_easy_setopt(void* handle, int option, ...) { return (void)handle, (void)option, 2; }
int curl_global_init(long flags) { return (void)flags, 2; }
void curl_global_cleanup(void) {}
void* curl_slist_append(void* list, const char* text) { return (void)list, (void)text, NULL; }
void curl_slist_free_all(void* list) { (void)list; }
