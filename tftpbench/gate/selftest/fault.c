/*
 * A fault for a server: loaded before its libraries (LD_PRELOAD), it makes every datagram that the server sends cost
 * more, or loses some of them. What it does is said by the environment; without that it does nothing:
 *
 *     TFTPBENCH_FAULT_SPIN_NS           CPU time for each datagram, in nanoseconds
 *     TFTPBENCH_FAULT_SYSCALLS_PER_1000 more system calls for every 1000 datagrams, evenly
 *     TFTPBENCH_FAULT_PAUSE_NS          time asleep for each datagram, in nanoseconds
 *     TFTPBENCH_FAULT_DATAGRAMS_PER_S   so many datagrams a second at most, however many threads send them
 *     TFTPBENCH_FAULT_DROP_PER_MILLION  so many of a million datagrams are reported as sent and are not, evenly
 *     TFTPBENCH_FAULT_MEMORY_BYTES      memory that is taken and written at the first datagram, and never given back
 *
 * It must never fail a call that would have succeeded, change a byte, touch errno, lose anything but UDP, or speak.
 * Only `tftpbench.gate.faults` builds it and has it loaded, to see whether the gate finds what it did: no server that
 * is measured for its own sake ever has it. A statically linked server, or one that calls the kernel itself, is out of
 * its reach; so is a segment size that was set for a whole socket.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MILLION = 1000000, SECOND_NS = 1000000000, PAGE = 4096 };
/* A look at the clock takes 25 ns or more: small debts are paid together. */
static const int64_t SPIN_STEP_NS = 2000;
/* The kernel may sleep 50 us too long (PR_SET_TIMERSLACK(2const)); what was too long is taken off the next debt. */
static const int64_t PAUSE_STEP_NS = 200000;
/* A sender that woke late, or had nothing to send, may make up for this much: the rate holds, and no burst is seen. */
static const int64_t CREDIT_NS = 20000000;
/* linux/udp.h, which older headers lack. */
enum { SEGMENT_LEVEL = 17, SEGMENT_TYPE = 103 };

static ssize_t (*real_sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static int (*real_sendmmsg)(int, struct mmsghdr *, unsigned int, int);

static int64_t spin_ns, syscalls_per_1000, pause_ns, datagrams_per_s, drop_per_million, memory_bytes;
static atomic_llong spin_owed, syscalls_owed, pause_owed, drops_owed, turn_ns;
static atomic_flag memory_taken = ATOMIC_FLAG_INIT;

/* A whole number from 0 to most; anything else, and no variable at all, is 0. */
static int64_t setting(const char *name, int64_t most)
{
    const char *text = getenv(name);
    if (text == NULL || *text < '0' || *text > '9')
        return 0;
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    return errno == 0 && *end == '\0' && value <= most ? value : 0;
}

__attribute__((constructor)) static void prepare(void)
{
    int saved = errno;
    /* dlsym gives a data pointer; POSIX lets it be a function's (dlsym(3p)). */
    *(void **)&real_sendto = dlsym(RTLD_NEXT, "sendto");
    *(void **)&real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    *(void **)&real_sendmmsg = dlsym(RTLD_NEXT, "sendmmsg");
    spin_ns = setting("TFTPBENCH_FAULT_SPIN_NS", SECOND_NS);
    syscalls_per_1000 = setting("TFTPBENCH_FAULT_SYSCALLS_PER_1000", MILLION);
    pause_ns = setting("TFTPBENCH_FAULT_PAUSE_NS", SECOND_NS);
    datagrams_per_s = setting("TFTPBENCH_FAULT_DATAGRAMS_PER_S", 100 * (int64_t)MILLION);
    drop_per_million = setting("TFTPBENCH_FAULT_DROP_PER_MILLION", MILLION);
    memory_bytes = setting("TFTPBENCH_FAULT_MEMORY_BYTES", (int64_t)1 << 36);
    errno = saved;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* Adds to a debt; returns all of it, taken off, once that is a step or more, else 0. */
static int64_t due(atomic_llong *owed, int64_t more, int64_t step)
{
    if (atomic_fetch_add(owed, more) + more < step)
        return 0;
    int64_t taken = atomic_exchange(owed, 0);
    if (taken >= step)
        return taken;
    atomic_fetch_add(owed, taken); /* another thread was faster */
    return 0;
}

static void spin(int64_t wanted)
{
    int64_t start = now_ns(), over;
    while ((over = now_ns() - start - wanted) < 0)
        ;
    atomic_fetch_sub(&spin_owed, over < SPIN_STEP_NS ? over : 0); /* more: it did not run all that time */
}

static void sleep_off(int64_t wanted)
{
    struct timespec time = {.tv_sec = wanted / SECOND_NS, .tv_nsec = wanted % SECOND_NS};
    int64_t start = now_ns();
    nanosleep(&time, NULL);
    atomic_fetch_sub(&pause_owed, now_ns() - start - wanted);
}

/* Waits until these datagrams may have been sent: by a timetable, which no late waking shifts. */
static void wait_for_turn(int64_t datagrams)
{
    int64_t now = now_ns(), mine;
    long long before = atomic_load(&turn_ns);
    do {
        mine = (before < now - CREDIT_NS ? now - CREDIT_NS : before) + datagrams * SECOND_NS / datagrams_per_s;
    } while (!atomic_compare_exchange_weak(&turn_ns, &before, mine));
    struct timespec time = {.tv_sec = mine / SECOND_NS, .tv_nsec = mine % SECOND_NS};
    while (mine > now && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        ;
}

static void call(int64_t wanted)
{
    for (; wanted >= 1000; wanted -= 1000)
        syscall(SYS_getppid);
    atomic_fetch_add(&syscalls_owed, wanted);
}

static void take_memory(void)
{
    if (memory_bytes == 0 || atomic_flag_test_and_set(&memory_taken))
        return;
    char *taken = mmap(NULL, (size_t)memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int64_t at = 0; taken != MAP_FAILED && at < memory_bytes; at += PAGE)
        ((volatile char *)taken)[at] = 1;
}

/* So many datagrams were sent: they cost what was asked for. */
static void sent(int64_t datagrams)
{
    int saved = errno;
    int64_t owed;
    take_memory();
    if (syscalls_per_1000 > 0 && (owed = due(&syscalls_owed, datagrams * syscalls_per_1000, 1000)) > 0)
        call(owed);
    if (spin_ns > 0 && (owed = due(&spin_owed, datagrams * spin_ns, SPIN_STEP_NS)) > 0)
        spin(owed);
    if (pause_ns > 0 && (owed = due(&pause_owed, datagrams * pause_ns, PAUSE_STEP_NS)) > 0)
        sleep_off(owed);
    if (datagrams_per_s > 0)
        wait_for_turn(datagrams);
    if (drop_per_million > 0)
        atomic_fetch_add(&drops_owed, datagrams * drop_per_million);
    errno = saved;
}

/* Whether these datagrams, the next to be sent, are to be lost. What the socket is, is asked only where they would be. */
static int is_lost(int fd, int64_t datagrams)
{
    int protocol = 0; /* where asking fails, the call itself does, and says why */
    socklen_t size = sizeof protocol;
    if (drop_per_million == 0 || atomic_load(&drops_owed) < MILLION ||
        getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_UDP)
        return 0;
    if (atomic_fetch_sub(&drops_owed, datagrams * MILLION) >= MILLION)
        return 1;
    atomic_fetch_add(&drops_owed, datagrams * MILLION); /* another thread was faster */
    return 0;
}

static size_t length_of(const struct msghdr *message)
{
    size_t length = 0;
    for (size_t part = 0; part < message->msg_iovlen; part++)
        length += message->msg_iov[part].iov_len;
    return length;
}

/* Datagrams that the kernel makes of a message: several where it is to be cut into segments (udp(7)). */
static int64_t datagrams_of(const struct msghdr *message)
{
    struct msghdr *header = (struct msghdr *)message; /* CMSG_NXTHDR knows no const */
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        uint16_t segment = 0;
        if (control->cmsg_level != SEGMENT_LEVEL || control->cmsg_type != SEGMENT_TYPE ||
            control->cmsg_len < CMSG_LEN(sizeof segment))
            continue;
        memcpy(&segment, CMSG_DATA(control), sizeof segment);
        size_t length = length_of(message);
        return segment > 0 && length > segment ? (int64_t)((length + segment - 1) / segment) : 1;
    }
    return 1;
}

static ssize_t counted(ssize_t result, int64_t datagrams)
{
    if (result >= 0 && datagrams > 0)
        sent(datagrams);
    return result;
}

ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t to_length)
{
    return counted(is_lost(fd, 1) ? (ssize_t)length : real_sendto(fd, bytes, length, flags, to, to_length), 1);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
    return sendto(fd, bytes, length, flags, NULL, 0); /* send(2): the same */
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    int64_t datagrams = datagrams_of(message);
    return counted(is_lost(fd, datagrams) ? (ssize_t)length_of(message) : real_sendmsg(fd, message, flags), datagrams);
}

/* Of several messages the first is lost, and reported as the only one that was sent: the caller goes on with the rest. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
    int is_first_lost = count > 0 && is_lost(fd, datagrams_of(&messages[0].msg_hdr));
    if (is_first_lost)
        messages[0].msg_len = (unsigned int)length_of(&messages[0].msg_hdr);
    int done = is_first_lost ? 1 : real_sendmmsg(fd, messages, count, flags);
    int64_t datagrams = 0;
    for (int message = 0; message < done; message++)
        datagrams += datagrams_of(&messages[message].msg_hdr);
    return (int)counted(done, datagrams);
}
