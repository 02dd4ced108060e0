//! What boots: the requests of one machine in order, and which machine boots how. Plain data, checked once, shared by all
//! workers. It must never send, wait or read a clock.

use std::sync::Arc;

use tftpbench_proto::{Habits, Mode, Operation, Options, Packet, REQUEST_LEN_MAX, emit_request_pairs};

use crate::load_error::LoadError;
use crate::machine_name::machine_name;

/// Longest file name in a request (NAME_MAX, limits.h); any longer and a request might pass 512 bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// More than any client asks for: GRUB with all its modules makes some 300 requests.
const STEPS_MAX: usize = 1000;
/// No client sends more than ten; what is behind the 512th byte is not allowed anyway (RFC 2347).
const OPTIONS_MAX: usize = 16;
/// A client that waits longer for one answer has left.
const WAIT_MAX_NS: u64 = 3_600_000_000_000;
/// Sendings of one datagram.
const WAITS_MAX: usize = 1000;
/// Machines of one turn of a mix.
const ORDER_MAX: u64 = 100_000;
/// An ERROR must be one short datagram.
const STOP_TEXT_MAX: usize = 48;

/// The boots of one run.
#[derive(Clone, Debug)]
pub struct BootPlan {
    shares: Vec<BootShare>,
    /// Machine n boots the share whose number is at n modulo its length.
    order: Vec<u32>,
}

/// One part of a mix.
#[derive(Clone, Debug)]
pub struct BootShare {
    /// The boot's name, for errors.
    pub name: String,
    /// Its weight in the mix.
    pub weight: u64,
    /// Its requests in order.
    pub steps: Vec<BootStep>,
}

/// One request of a boot.
#[derive(Clone, Debug)]
pub struct BootStep {
    /// Read or write.
    pub operation: Operation,
    /// Name of the file, with variables of the machine.
    pub name: String,
    /// Options in the order of the wire; `{size}` in a value becomes the file's size.
    pub options: Vec<(String, String)>,
    /// Size of the file that is read or written; `None` for an expected miss.
    pub size_bytes: Option<u64>,
    /// Number of its contents f(seed, file, offset).
    pub file: u64,
    /// Compared with these bytes instead.
    pub contents: Option<Arc<[u8]>>,
    /// How the request should end.
    pub ends: Ends,
    /// Pause between the end of the step before it and its request.
    pub think_ns: u64,
    /// How long each sending waits, and what is said to DATA out of order. Whether there are options that are not known, the
    /// plan sees for itself.
    pub habits: Arc<Habits>,
    /// What follows when it fails.
    pub then: Then,
    /// How often.
    pub restarts_max: u32,
}

/// How a request should end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The whole file.
    Whole,
    /// With an ERROR as the first answer: the file is expected to be absent.
    Missing,
    /// With an ERROR of the client's.
    Stop {
        /// After this DATA block; 0 is the first answer.
        after: u64,
        /// Its code.
        code: u16,
        /// Its message.
        text: Arc<str>,
        /// The answer is acknowledged before.
        acks: bool,
    },
}

/// What a client does when a step has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The boot has failed.
    GiveUp,
    /// It sends the same request again.
    RestartTransfer,
    /// It begins with its first request again.
    RestartBoot,
}

impl BootPlan {
    /// The plan of these shares, or what is wrong with them.
    pub fn new(mut shares: Vec<BootShare>) -> Result<BootPlan, LoadError> {
        let refuse = |text: String| Err(LoadError::Config(format!("boots: {text}")));
        if shares.is_empty() {
            return refuse("at least one is needed".to_owned());
        }
        let weights: Vec<u64> = shares.iter().map(|share| share.weight).collect();
        let Some(order) = smooth_order(&weights) else {
            return refuse(format!("weights must be at least 1, and {ORDER_MAX} together at most"));
        };
        for BootShare { name, steps, .. } in &shares {
            if steps.is_empty() || steps.len() > STEPS_MAX {
                return refuse(format!("{name} has {} steps; allowed: 1 to {STEPS_MAX}", steps.len()));
            }
            for (index, step) in steps.iter().enumerate() {
                if let Err(text) = step.check() {
                    return refuse(format!("step {} of {name}: {text}", index + 1));
                }
            }
        }
        for step in shares.iter_mut().flat_map(|share| &mut share.steps) {
            let (_, asks_others) = step.asked();
            Arc::make_mut(&mut step.habits).asks_others = asks_others;
        }
        Ok(BootPlan { shares, order })
    }

    /// The number of the share that machine `number` boots.
    pub(crate) fn share_of(&self, number: u64) -> usize {
        self.order[(number % self.order.len() as u64) as usize] as usize
    }

    /// The requests of a share.
    pub(crate) fn steps(&self, share: usize) -> &[BootStep] {
        &self.shares[share].steps
    }

    /// All requests of all shares.
    pub(crate) fn all_steps(&self) -> impl Iterator<Item = &BootStep> {
        self.shares.iter().flat_map(|share| &share.steps)
    }

    /// Most requests of one machine, none of them repeated.
    pub(crate) fn steps_max(&self) -> usize {
        self.shares.iter().map(|share| share.steps.len()).max().unwrap_or(0)
    }
}

impl BootStep {
    fn check(&self) -> Result<(), String> {
        let name = machine_name(&self.name, u64::MAX).map_err(|text| format!("name: {text}"))?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err("name: must have 1 to 255 bytes, variables filled in, and no NUL".to_owned());
        }
        if self.options.len() > OPTIONS_MAX {
            return Err(format!("options: {} are more than {OPTIONS_MAX}", self.options.len()));
        }
        if self
            .options
            .iter()
            .any(|(name, value)| name.is_empty() || name.contains('\0') || value.contains('\0'))
        {
            return Err(
                "options: a name must not be empty, and neither it nor a value may have a NUL".to_owned()
            );
        }
        let request = self.request(u64::MAX);
        if request.len() > REQUEST_LEN_MAX {
            return Err(format!(
                "the request has {} bytes; RFC 2347 allows {REQUEST_LEN_MAX}",
                request.len()
            ));
        }
        for waits in [&self.habits.opening_waits_ns, &self.habits.waits_ns] {
            if waits.is_empty() || waits.len() > WAITS_MAX {
                return Err(format!("waits: there must be 1 to {WAITS_MAX}"));
            }
            if waits.iter().any(|wait_ns| !(1..=WAIT_MAX_NS).contains(wait_ns)) {
                return Err("waits: must be longer than 0 and at most 1 h".to_owned());
            }
        }
        if self.think_ns > WAIT_MAX_NS {
            return Err("think: must be at most 1 h".to_owned());
        }
        match &self.ends {
            Ends::Missing if self.operation == Operation::Write => {
                Err("only a file that is read can be missing".to_owned())
            }
            Ends::Stop { .. } if self.operation == Operation::Write => {
                Err("only a file that is read can be stopped".to_owned())
            }
            Ends::Stop { text, .. } if text.len() > STOP_TEXT_MAX || text.contains('\0') => {
                Err(format!("the message of an ERROR must have at most {STOP_TEXT_MAX} bytes and no NUL"))
            }
            Ends::Whole if self.size_bytes.is_none() && self.contents.is_none() => {
                Err("size_bytes: is needed of a file that is read or written".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The datagram with which machine `number` asks.
    pub(crate) fn request(&self, number: u64) -> Vec<u8> {
        let mut request = Vec::with_capacity(128);
        // `check` has refused what has no name.
        let name = machine_name(&self.name, number).unwrap_or_default();
        let size = self.size_bytes.unwrap_or(0).to_string();
        let values: Vec<(&str, String)> = self
            .options
            .iter()
            .map(|(name, value)| (name.as_str(), value.replace("{size}", &size)))
            .collect();
        let pairs = values.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        emit_request_pairs(&mut request, self.operation, name.as_bytes(), Mode::Octet, pairs);
        request
    }

    /// The options among those of the request that are known, and whether there are others.
    pub(crate) fn asked(&self) -> (Options, bool) {
        asked(&self.request(0))
    }
}

/// The options in a request that are known, and whether there are others.
pub(crate) fn asked(request: &[u8]) -> (Options, bool) {
    match Packet::parse(request) {
        Ok(Packet::Request(request)) => (Options::from_list(request.options), request.options.has_unknown()),
        _ => (Options::default(), false),
    }
}

/// The order of a mix, as smooth as can be (the weighted round robin of nginx): in every turn each has as many places as
/// its weight, spread evenly. `None` where a weight is 0, or their sum too large.
fn smooth_order(weights: &[u64]) -> Option<Vec<u32>> {
    let divisor = weights.iter().copied().reduce(gcd)?;
    let sum = weights.iter().try_fold(0_u64, |sum, weight| sum.checked_add(*weight))?;
    if weights.contains(&0) || sum / divisor > ORDER_MAX {
        return None;
    }
    let weights: Vec<i64> = weights.iter().map(|weight| (weight / divisor) as i64).collect();
    let turn = weights.iter().sum::<i64>();
    let mut due = vec![0_i64; weights.len()];
    let next = |_| {
        due.iter_mut().zip(&weights).for_each(|(due, weight)| *due += weight);
        let largest = (0..due.len()).rev().max_by_key(|index| due[*index]).unwrap_or(0);
        due[largest] -= turn;
        largest as u32
    };
    Some((0..turn).map(next).collect())
}

fn gcd(one: u64, two: u64) -> u64 {
    if two == 0 { one } else { gcd(two, one % two) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use tftpbench_proto::Nack;

    const SECOND: u64 = 1_000_000_000;

    /// A read of a small file, to be changed.
    pub(crate) fn read(name: &str) -> BootStep {
        BootStep {
            operation: Operation::Read,
            name: name.to_owned(),
            options: Vec::new(),
            size_bytes: Some(100),
            file: 0,
            contents: None,
            ends: Ends::Whole,
            think_ns: 0,
            habits: waits(&[SECOND], &[SECOND]),
            then: Then::GiveUp,
            restarts_max: 0,
        }
    }

    pub(crate) fn waits(opening: &[u64], reading: &[u64]) -> Arc<Habits> {
        let (opening_waits_ns, waits_ns) = (opening.into(), reading.into());
        Arc::new(Habits { opening_waits_ns, waits_ns, nack: Nack::Gap, asks_others: false })
    }

    pub(crate) fn plan(steps: Vec<BootStep>) -> Result<BootPlan, LoadError> {
        BootPlan::new(vec![BootShare { name: "made-up".to_owned(), weight: 1, steps }])
    }

    #[test]
    fn a_request_is_its_options_in_their_order_whether_known_or_not() {
        let options = [("tsize", "{size}"), ("msftwindow", "31416"), ("blksize", "1468")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let step = BootStep { options, ..read("cfg/{mac-}") };
        let request = "\0\x01cfg/02-00-00-00-00-01\0octet\0tsize\0#100\0msftwindow\0#31416\0blksize\0#1468\0";
        assert_eq!(String::from_utf8(step.request(1)).unwrap(), request.replace('#', ""));
        let (asked, asks_others) = step.asked();
        assert_eq!((asked.blksize, asked.tsize, asks_others), (Some(1468), Some(100), true));
        assert!(!read("a").asked().1);
    }

    #[test]
    fn a_mix_holds_its_weights_in_every_turn_and_spreads_them() {
        assert_eq!(smooth_order(&[8, 2]).unwrap(), [0, 0, 1, 0, 0]);
        assert_eq!(smooth_order(&[5, 1, 1]).unwrap(), [0, 0, 1, 0, 2, 0, 0], "as nginx does");
        assert_eq!(smooth_order(&[3]).unwrap(), [0]);
        assert_eq!(
            [smooth_order(&[1, 0]), smooth_order(&[u64::MAX, 1]), smooth_order(&[200_000, 1])],
            [const { None }; 3]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_step() {
        let long = |count: usize| vec![("o".repeat(100), "v".repeat(100)); count];
        let stop = |text: &str| Ends::Stop { after: 0, code: 8, text: text.into(), acks: false };
        for (step, why) in [
            (read(""), "name"),
            (read("a\0"), "NUL"),
            (read(&"{n}".repeat(13)), "255 bytes"),
            (read("{ip}"), "{ip} is no variable"),
            (BootStep { habits: waits(&[], &[1]), ..read("a") }, "waits"),
            (BootStep { habits: waits(&[1], &[]), ..read("a") }, "waits"),
            (BootStep { habits: waits(&[1, 0], &[1]), ..read("a") }, "longer than 0"),
            (BootStep { habits: waits(&[1], &[WAIT_MAX_NS + 1]), ..read("a") }, "1 h"),
            (BootStep { options: long(3), ..read("a") }, "RFC 2347"),
            (BootStep { options: vec![("a".to_owned(), String::new()); 17], ..read("a") }, "17"),
            (BootStep { options: vec![(String::new(), String::new())], ..read("a") }, "empty"),
            (BootStep { size_bytes: None, ..read("a") }, "size_bytes"),
            (BootStep { think_ns: u64::MAX, ..read("a") }, "think"),
            (BootStep { ends: stop(&"x".repeat(49)), ..read("a") }, "48 bytes"),
            (BootStep { ends: stop(""), operation: Operation::Write, ..read("a") }, "stopped"),
            (BootStep { ends: Ends::Missing, operation: Operation::Write, ..read("a") }, "missing"),
        ] {
            let text = plan(vec![read("fine"), step]).unwrap_err().to_string();
            assert!(text.starts_with("boots: step 2 of made-up: ") && text.contains(why), "{text}: {why}");
        }
        for steps in [0, 1_001] {
            let text = plan(vec![read("a"); steps]).unwrap_err().to_string();
            assert!(text.contains(&format!("{steps} steps")), "{text}");
        }
        assert!(plan(vec![read("a"); 1_000]).is_ok());
    }
}
