//! The clocks everything is stamped with. Never sleeps.

/// Nanoseconds on the monotonic clock, the time base of deadlines and durations.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since 1970, the time base of kernel receive stamps. It may jump.
pub fn realtime_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// `realtime_ns` less `monotonic_ns`, to bring kernel stamps into the time base. Of some readings the one that was
/// disturbed least, so that losing the CPU in the middle of one does not matter.
pub fn realtime_offset_ns() -> i64 {
    let reading = |_| {
        let (before_ns, realtime_ns, after_ns) = (monotonic_ns(), realtime_ns(), monotonic_ns());
        let took_ns = after_ns - before_ns;
        (took_ns, realtime_ns as i64 - (before_ns + took_ns / 2) as i64)
    };
    (0..OFFSET_READINGS).map(reading).min().map_or(0, |(_, offset_ns)| offset_ns)
}

/// A reading takes some 100 ns; three interrupted ones in a row are rare.
const OFFSET_READINGS: usize = 3;

/// CPU time the calling thread has used, user and system. A system call, unlike the other two.
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The monotonic clock as of the last timer interrupt (1 to 10 ms ago): cheaper, and coarse.
pub(crate) fn monotonic_coarse_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

pub(crate) const NS_PER_S: u64 = 1_000_000_000;

/// A kernel time as nanoseconds; a time before its epoch counts as the epoch.
pub(crate) fn timespec_ns(time: &libc::timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * NS_PER_S + nanoseconds
}

// clock_gettime(2). It fails only for a clock that does not exist; all of ours are as old as 2.6.32.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call may write for as long as it runs.
    let status = unsafe { libc::clock_gettime(clock, &mut time) };
    debug_assert_eq!(status, 0, "clock {clock} does not exist");
    timespec_ns(&time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back() {
        let readings: Vec<u64> = (0..1000).map(|_| monotonic_ns()).collect();
        assert!(readings.is_sorted() && readings[0] > 0);
    }

    #[test]
    fn thread_cpu_time_grows_with_work() {
        let before_ns = thread_cpu_ns();
        let mut sum = 0u64;
        while thread_cpu_ns() == before_ns {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(thread_cpu_ns() > before_ns);
    }

    #[test]
    fn the_offset_leads_from_one_clock_to_the_other() {
        let realtime_ns = monotonic_ns().saturating_add_signed(realtime_offset_ns());
        assert!(realtime_ns.abs_diff(super::realtime_ns()) < NS_PER_S / 100);
    }

    #[test]
    fn real_time_agrees_with_the_standard_library() {
        let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        assert!(realtime_ns().abs_diff(since_1970) < NS_PER_S);
    }
}
