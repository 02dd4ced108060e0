//! Limits of the process. Changes only soft limits, which needs no privilege. Called once, at start-up.

use std::fmt;
use std::io;

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
    // getrlimit(2) fails for bad arguments only; if it ever does, the files themselves will tell.
    let Ok(mut limit) = open_files() else { return Ok(need) };
    let (soft, hard) = (limit.rlim_cur, limit.rlim_max);
    if soft >= need {
        return Ok(soft);
    }
    limit.rlim_cur = need;
    // SAFETY: `limit` is a valid rlimit that the call only reads.
    let raised = need <= hard && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    if raised { Ok(need) } else { Err(OpenFilesShortfall { need, soft, hard }) }
}

fn open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call may write.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_high_enough_stays() {
        let before = open_files().unwrap();
        assert_eq!(raise_open_files(1), Ok(before.rlim_cur));
        assert!(open_files().unwrap().rlim_cur >= before.rlim_cur);
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a skipped test says why")]
    fn more_than_the_hard_limit_says_which_number_is_needed() {
        let hard = open_files().unwrap().rlim_max;
        if hard == libc::RLIM_INFINITY {
            println!("skipped: the hard limit is infinite");
            return;
        }
        let shortfall = raise_open_files(hard + 1).unwrap_err();
        assert_eq!((shortfall.need, shortfall.hard), (hard + 1, hard));
        assert!(shortfall.to_string().contains(&format!("LimitNOFILE={}", hard + 1)));
    }
}
