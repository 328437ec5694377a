/**
 * The system calls a machine may make: a list of what is allowed, so that calls of later kernels stay out until
 * somebody has thought about them. Those answer ENOSYS, and C libraries fall back; calls that are refused on purpose
 * answer EPERM.
 *
 * The guest's kernel is the host's, so the list serves one aim: keep away what only administrators of a kernel need,
 * and what past escapes went through. Chromium's own sandbox needs user, pid and network namespaces of its own, so
 * these stay possible, and with them administrator's rights over a network namespace: therefore sockets are limited to
 * families that cannot configure a packet filter.
 */
const EPERM = 1;
const ENOSYS = 38;

/** Namespace flags of clone and unshare that nobody in a machine needs: mount, cgroup, UTS, IPC. */
const FORBIDDEN_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000;
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;
/** IPT_SO_SET_REPLACE: the old way to load a packet filter. */
const SET_PACKET_FILTER = 64;
const AF = { unix: 1, inet: 2, inet6: 10, netlink: 16 } as const;
const NETLINK = { route: 0, uevent: 15 } as const;

const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '');

const ALLOWED = words(`
  _llseek access alarm arch_prctl accept accept4 bind brk capget capset chdir chmod chown clock_getres clock_gettime
  clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
  epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
  fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork
  fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_wait futex_waitv futex_wake futimesat
  get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups
  getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
  getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1
  inotify_rm_watch ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
  lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack
  membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr
  mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
  munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
  pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_madvise
  process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg
  recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
  rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
  sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
  sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
  sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_mempolicy
  set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority
  setregid setresgid setresuid setreuid setrlimit setsid setuid setxattr shmat shmctl shmdt shmget
  shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync
  sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
  timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat
  utime utimensat utimes vfork vmsplice wait4 waitid waitpid write writev
  chroot
`);

/** Known and refused. chroot is above: Chromium's sandbox needs it, inside its own user namespace. */
const REFUSED = words(`
  acct add_key adjtimex bpf clock_adjtime clock_settime delete_module fanotify_init fanotify_mark finit_module fsconfig
  fsmount fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
  kexec_load keyctl lookup_dcookie mbind migrate_pages modify_ldt mount mount_setattr move_mount move_pages
  name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root
  process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot request_key setdomainname sethostname
  setns settimeofday swapoff swapon syslog umount umount2 userfaultfd uselib ustat vhangup
`);

interface Rule {
  names: string[];
  action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';
  errnoRet?: number;
  args?: { index: number; value: number; valueTwo?: number; op: string }[];
}

const allow = (names: string[], args?: Rule['args']): Rule => ({
  names,
  action: 'SCMP_ACT_ALLOW',
  ...(args === undefined ? {} : { args }),
});
const is = (index: number, value: number) => ({ index, value, op: 'SCMP_CMP_EQ' });
const without = (index: number, mask: number) => ({
  index,
  value: mask,
  valueTwo: 0,
  op: 'SCMP_CMP_MASKED_EQ',
});

/**
 * Conditions of which one holds exactly when the lower half of an argument is none of `values`. A filter compares all 64
 * bits, the kernel takes 32 of an `int`: a plain "not equal" is passed by the same number with a bit set above. The values
 * must differ from each other in a few bits only.
 */
export function lowHalfIsNot(index: number, values: readonly [number, ...number[]]) {
  const conditions: { index: number; value: number; valueTwo: number; op: string }[] = [];
  const when = (mask: number, equals: number): void => {
    conditions.push({ index, value: mask, valueTwo: equals, op: 'SCMP_CMP_MASKED_EQ' });
  };
  const disagree: number[] = [];
  for (let bit = 0; bit < 32; bit++) {
    const mask = 2 ** bit;
    const set = values.filter((value) => Math.floor(value / mask) % 2 === 1).length;
    if (set === 0) when(mask, mask);
    else if (set === values.length) when(mask, 0);
    else disagree.push(mask);
  }
  // Where the values differ from each other, every combination that none of them has.
  const mask = disagree.reduce((sum, one) => sum + one, 0);
  const taken = new Set(values.map((value) => (value & mask) >>> 0));
  for (let combination = 0; combination < 2 ** disagree.length; combination++) {
    const bits = disagree.reduce((sum, one, at) => sum + ((combination >> at) & 1) * one, 0);
    if (!taken.has(bits)) when(mask, bits);
  }
  return conditions;
}

/** The filter in the form of the OCI runtime specification, for the architecture this process runs on. */
export function seccompFilter(): object {
  const architecture = process.arch === 'arm64' ? 'SCMP_ARCH_AARCH64' : 'SCMP_ARCH_X86_64';
  const rules: Rule[] = [
    allow(ALLOWED),
    allow(['clone', 'unshare'], [without(0, FORBIDDEN_NAMESPACES)]),
    // Its flags are behind a pointer, which a filter cannot read: C libraries fall back to clone.
    { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
    ...[AF.unix, AF.inet, AF.inet6].map((family) => allow(['socket'], [is(0, family)])),
    ...[NETLINK.route, NETLINK.uevent].map((protocol) =>
      allow(['socket'], [is(0, AF.netlink), is(2, protocol)]),
    ),
    ...lowHalfIsNot(2, [SET_PACKET_FILTER]).map((condition) => allow(['setsockopt'], [condition])),
    ...lowHalfIsNot(1, [TIOCSTI, TIOCLINUX]).map((condition) => allow(['ioctl'], [condition])),
    // Linux (0) and asking (0xffffffff): no execution domain that switches off protections.
    ...[0, 0xffffffff].map((domain) => allow(['personality'], [is(0, domain)])),
    { names: REFUSED, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM },
  ];
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: ENOSYS,
    architectures: [architecture],
    syscalls: rules,
  };
}
