/* Keys only; crypt() is missing in Debian's musl 1.2.3-1 for amd64 besides. */
#define DROPBEAR_SVR_PASSWORD_AUTH 0
#define DROPBEAR_CLI_PASSWORD_AUTH 0
/* Its key generation in portable C costs a tenth of a second and more of each login under
 * emulation. */
#define DROPBEAR_SNTRUP761 0
#define DROPBEAR_SFTPSERVER 0
#define DO_MOTD 0
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"
#define DEFAULT_ROOT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
