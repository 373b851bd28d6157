/* Start a machine in VirtualBox without its kernel driver, as the process VBoxHeadless that VBoxSVC
 * starts.
 *
 * The packaged VBoxHeadless is a set-user-id stub that ends when it cannot open /dev/vboxdrv. What
 * runs the machine is VBoxHeadless.so, and the runtime under it knows a mode without driver
 * ("driverless"), in which the machine's instructions are interpreted. So: initialize the runtime
 * in that mode, then call what the stub would call.
 *
 * The flags are those of VirtualBox's headers iprt/initterm.h and VBox/sup.h, the same from 7.0
 * to 7.2. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

#ifndef LIBRARIES
#define LIBRARIES "/usr/lib/virtualbox/"
#endif

enum {
    RTR3INIT_FLAGS_TRY_SUPLIB = 1 << 4,
    RTR3INIT_FLAGS_SUPLIB_SHIFT = 16,
    SUPR3INIT_F_DRIVERLESS = 1 << 2,
    CANNOT_START = 2,
};

typedef int (*init_exe)(int argc, char ***argv, uint32_t flags);
typedef int (*trusted_main)(int argc, char **argv, char **environment);

/* A function of a library, or NULL with the reason on stderr. */
static void *function_of(const char *library, const char *name)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    void *found = handle ? dlsym(handle, name) : NULL;
    if (!found) {
        fprintf(stderr, "VBoxHeadless without driver: %s\n", dlerror());
    }
    return found;
}

int main(int argc, char **argv, char **environment)
{
    init_exe initialize = (init_exe)function_of(LIBRARIES "VBoxRT.so", "RTR3InitExe");
    if (!initialize) {
        return CANNOT_START;
    }
    uint32_t flags = RTR3INIT_FLAGS_TRY_SUPLIB | SUPR3INIT_F_DRIVERLESS
                                                     << RTR3INIT_FLAGS_SUPLIB_SHIFT;
    int status = initialize(argc, &argv, flags);
    if (status < 0) {
        fprintf(stderr, "VBoxHeadless without driver: RTR3InitExe gives %d\n", status);
        return CANNOT_START;
    }
    trusted_main run = (trusted_main)function_of(LIBRARIES "VBoxHeadless.so", "TrustedMain");
    return run ? run(argc, argv, environment) : CANNOT_START;
}
