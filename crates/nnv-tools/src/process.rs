// SPDX-License-Identifier: MPL-2.0
//! What this process has used so far.

use std::time::Duration;

/// Processor time of all threads: tells the cost also on a busy machine. Zero where the system does
/// not tell.
#[cfg(unix)]
pub fn processor_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills `usage`, which is valid when all zeros, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| {
        let (s, us) = (u64::try_from(t.tv_sec), u64::try_from(t.tv_usec));
        Duration::from_secs(s.unwrap_or(0)) + Duration::from_micros(us.unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[cfg(not(unix))]
pub fn processor_time() -> Duration {
    Duration::ZERO
}

/// Resident memory now and at its peak, in MiB; zeros where /proc is not to be had.
pub fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
            / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// A broken pipe ends the program, as it does others (`nnv units FILE | head`), and is no panic.
#[cfg(unix)]
pub fn end_with_pipe() {
    // SAFETY: called before any thread starts; the default action runs no code of ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

#[cfg(not(unix))]
pub fn end_with_pipe() {}

/// From now on a broken pipe is an error where one writes: for those that write to processes.
#[cfg(unix)]
pub fn keep_with_pipe() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

#[cfg(not(unix))]
pub fn keep_with_pipe() {}
