/* vgpu.c - as much of HAMi-core as shows that it stands in the way: what is asked of dlsym goes through it.
 *   cc -shared -fPIC -w -o libvgpu.so vgpu.c                          as its debug build: others see its functions
 *   cc -shared -fPIC -w -fvisibility=hidden -o libvgpu.so vgpu.c      as its release build: they see dlsym only */
#define _GNU_SOURCE
#include <dlfcn.h>
#ifdef __aarch64__
#define FIRST "GLIBC_2.17"
#else
#define FIRST "GLIBC_2.2.5"
#endif
int cuMemAlloc_v2(void) { return 0; }
int cuMemGetInfo_v2(void) { return 0; }
int cuLaunchKernel(void) { return 0; }
__attribute__((visibility("default"))) void *dlsym(void *from, const char *name) {
  void *(*real)(void *, const char *) = dlvsym(RTLD_NEXT, "dlsym", FIRST);
  return real(from, name);
}
