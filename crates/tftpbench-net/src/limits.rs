//! Limits of the process. Changes only soft limits, which needs no privilege. Called once, at start-up.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More open files are needed than the hard limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFilesShortfall {
    /// Open files that were asked for.
    pub need: u64,
    /// The soft limit in force.
    pub soft: u64,
    /// The hard limit, which only a privileged process may raise.
    pub hard: u64,
}

impl fmt::Display for OpenFilesShortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenFilesShortfall { need, soft, hard } = self;
        write!(
            f,
            "{need} open files are needed but the hard limit is {hard} (soft {soft}): \
             raise it to {need} with `ulimit -Hn {need}` as root, or LimitNOFILE={need} in systemd"
        )
    }
}

impl std::error::Error for OpenFilesShortfall {}

/// Sees to it that the process may hold `need` open files, raising the soft limit where it is lower.
///
/// Returns the soft limit now in force, which is `need` or more.
pub fn raise_open_files(need: u64) -> Result<u64, OpenFilesShortfall> {
    let mut limit = open_files();
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft >= need {
        return Ok(soft);
    }
    limit.current = Some(need);
    let is_raised = need <= hard && setrlimit(Resource::Nofile, limit).is_ok();
    if is_raised { Ok(need) } else { Err(OpenFilesShortfall { need, soft, hard }) }
}

/// How many ports the kernel gives to sockets that ask for none (ip_local_port_range, ip(7)); `None` where it can't be
/// known.
pub fn local_ports() -> Option<u64> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let ends: Vec<u64> = range.split_whitespace().filter_map(|end| end.parse().ok()).collect();
    let &[low, high] = ends.as_slice() else { return None };
    Some(high.saturating_sub(low) + 1)
}

/// Memory that can be had without swapping (MemAvailable, proc_meminfo(5)); `None` where it can't be known.
pub fn available_memory_bytes() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let value = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// None in it is infinite.
fn open_files() -> Rlimit {
    getrlimit(Resource::Nofile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_high_enough_stays() {
        let before = open_files().current.unwrap_or(u64::MAX);
        assert_eq!(raise_open_files(1), Ok(before));
        assert!(open_files().current.unwrap_or(u64::MAX) >= before);
    }

    #[test]
    fn ports_and_memory_of_this_machine_are_known() {
        assert!((1..=65_536).contains(&local_ports().unwrap()));
        assert!(available_memory_bytes().unwrap() > 1 << 20);
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a skipped test says why")]
    fn more_than_the_hard_limit_says_which_number_is_needed() {
        let Some(hard) = open_files().maximum else {
            println!("skipped: the hard limit is infinite");
            return;
        };
        let shortfall = raise_open_files(hard + 1).unwrap_err();
        assert_eq!((shortfall.need, shortfall.hard), (hard + 1, hard));
        assert!(shortfall.to_string().contains(&format!("LimitNOFILE={}", hard + 1)));
    }
}
