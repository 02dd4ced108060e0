//! Pollers and stops with real descriptors.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in tests a panic is the report, a skip says why"
)]

use std::thread;

use tftpbench_net::{Poller, ReceiveBatch, Sent, Socket, SocketOptions, Stop, limits};

const MS_NS: u64 = 1_000_000;
/// Long enough for a loaded machine; a test that waits this long has failed.
const WAIT_MAX_NS: u64 = 5_000 * MS_NS;

fn socket() -> Socket {
    Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap()
}

#[test]
fn a_socket_is_ready_until_it_is_empty() {
    let (sender, receiver) = (socket(), socket());
    let mut poller = Poller::new().unwrap();
    poller.add(&receiver, 42).unwrap();
    assert_eq!(poller.wait(Some(0), 0).unwrap().ready, 0);
    sender.send_to(b"x", receiver.local_addr()).unwrap();
    for spin_ns in [0, MS_NS] {
        let waited = poller.wait(Some(WAIT_MAX_NS), spin_ns).unwrap();
        assert_eq!((waited.ready, poller.tokens()), (1, &[42][..]));
    }
    ReceiveBatch::new(1, 10).receive(&receiver).unwrap();
    assert_eq!(poller.wait(Some(0), 0).unwrap().ready, 0);
    assert_eq!(poller.tokens(), []);
}

#[test]
fn a_busy_socket_is_as_good_as_any_other_and_both_are_told_together() {
    let (sender, busy, other, stop) = (socket(), socket(), socket(), Stop::new().unwrap());
    let mut poller = Poller::new().unwrap();
    poller.add_busy(&busy, 1).unwrap();
    poller.add(&other, 2).unwrap();
    poller.add(&stop, 3).unwrap();
    for spin_ns in [0, MS_NS] {
        assert_eq!(poller.wait(Some(MS_NS), spin_ns).unwrap().ready, 0);
    }
    let ready = |poller: &mut Poller, sockets: &[&Socket]| {
        sockets.iter().for_each(|to| assert_eq!(sender.send_to(b"x", to.local_addr()).unwrap(), Sent::Done));
        let waited = poller.wait(Some(WAIT_MAX_NS), 0).unwrap();
        sockets.iter().for_each(|socket| assert_eq!(ReceiveBatch::new(1, 10).receive(socket).unwrap(), 1));
        let mut tokens = poller.tokens().to_vec();
        tokens.sort_unstable();
        assert_eq!(waited.ready, tokens.len());
        tokens
    };
    assert_eq!(ready(&mut poller, &[&busy]), [1]);
    assert_eq!(ready(&mut poller, &[&other]), [2]);
    assert_eq!(ready(&mut poller, &[&busy, &other]), [1, 2]);
    stop.request();
    assert_eq!(poller.wait(Some(WAIT_MAX_NS), 0).unwrap().ready, 1);
    assert_eq!((poller.tokens(), stop.requests()), (&[3][..], 1));
}

#[test]
fn more_busy_sockets_than_are_polled_are_told_as_well() {
    let (sender, sockets) = (socket(), [(); 12].map(|()| socket()));
    let mut poller = Poller::new().unwrap();
    for (token, socket) in (0..).zip(&sockets) {
        poller.add_busy(socket, token).unwrap();
        sender.send_to(b"x", socket.local_addr()).unwrap();
    }
    assert_eq!(poller.wait(Some(WAIT_MAX_NS), 0).unwrap().ready, 12);
    let mut tokens = poller.tokens().to_vec();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..12).collect::<Vec<u64>>());
}

#[test]
fn a_sleeper_is_woken_by_a_busy_socket_within_its_time() {
    let (sender, busy) = (socket(), socket());
    let mut poller = Poller::new().unwrap();
    poller.add_busy(&busy, 1).unwrap();
    let waited = poller.wait(Some(3 * MS_NS), 0).unwrap();
    assert!(waited.slept && waited.ready == 0 && waited.idle_ns >= 3 * MS_NS, "{waited:?}");
    thread::scope(|scope| {
        let woken = scope.spawn(|| poller.wait(None, 0).unwrap().ready);
        sender.send_to(b"x", busy.local_addr()).unwrap();
        assert_eq!(woken.join().unwrap(), 1);
    });
}

#[test]
fn what_is_ready_at_once_counts_as_no_idle_time() {
    let (sender, receiver) = (socket(), socket());
    let mut poller = Poller::new().unwrap();
    poller.add(&receiver, 1).unwrap();
    sender.send_to(b"x", receiver.local_addr()).unwrap();
    assert_eq!(poller.wait(Some(WAIT_MAX_NS), 0).unwrap().ready, 1);
    // By now it has been delivered.
    let waited = poller.wait(Some(WAIT_MAX_NS), MS_NS).unwrap();
    assert_eq!((waited.ready, waited.idle_ns, waited.slept), (1, 0, false));
}

#[test]
fn a_removed_socket_wakes_no_poller() {
    let (sender, receiver) = (socket(), socket());
    let mut poller = Poller::new().unwrap();
    poller.add(&receiver, 1).unwrap();
    poller.remove(&receiver).unwrap();
    sender.send_to(b"x", receiver.local_addr()).unwrap();
    assert_eq!(poller.wait(Some(MS_NS), 0).unwrap().ready, 0);
}

#[test]
fn a_busy_socket_that_is_removed_wakes_no_poller_and_frees_its_port() {
    let (sender, mut receivers) = (socket(), [(); 3].map(|()| Some(socket())));
    let mut poller = Poller::new().unwrap();
    for (token, receiver) in receivers.iter().flatten().enumerate() {
        poller.add_busy(receiver, token as u64).unwrap();
    }
    assert!(poller.remove_busy(0) && !poller.remove_busy(0) && !poller.remove_busy(9));
    for receiver in receivers.iter().flatten() {
        sender.send_to(b"x", receiver.local_addr()).unwrap();
    }
    assert_eq!(poller.wait(Some(WAIT_MAX_NS), 0).unwrap().ready, 2);
    let mut ready = poller.tokens().to_vec();
    ready.sort_unstable();
    assert_eq!(ready, [1, 2]);
    let removed = receivers[0].take().unwrap().local_addr();
    assert!(std::net::UdpSocket::bind(removed).is_ok());
}

#[test]
fn a_spin_that_covers_the_timeout_never_sleeps() {
    let waited = Poller::new().unwrap().wait(Some(MS_NS), 100 * MS_NS).unwrap();
    assert_eq!((waited.ready, waited.slept), (0, false));
    assert!(waited.idle_ns >= MS_NS);
}

#[test]
fn after_the_spin_it_sleeps_for_the_rest_of_the_timeout() {
    // Long enough that a machine busy with other things still finds some of it left after the spin.
    let waited = Poller::new().unwrap().wait(Some(200 * MS_NS), MS_NS).unwrap();
    assert_eq!((waited.ready, waited.slept), (0, true));
    assert!(waited.idle_ns >= 200 * MS_NS, "{waited:?}");
}

#[test]
fn a_wait_under_a_millisecond_is_as_long_as_asked() {
    let waited = Poller::new().unwrap().wait(Some(MS_NS / 4), 0).unwrap();
    assert!(waited.slept && waited.idle_ns >= MS_NS / 4, "{waited:?}");
}

#[test]
fn a_stop_wakes_every_poller_once_for_each_request() {
    let stop = Stop::new().unwrap();
    let mut pollers = [(); 3].map(|()| Poller::new().unwrap());
    for poller in &pollers {
        poller.add(&stop, 9).unwrap();
    }
    for request in 1..=3 {
        stop.request();
        for poller in &mut pollers {
            let waited = poller.wait(Some(WAIT_MAX_NS), 0).unwrap();
            assert_eq!((waited.ready, poller.tokens()), (1, &[9][..]));
            assert_eq!(stop.requests(), request);
            assert_eq!(poller.wait(Some(0), 0).unwrap().ready, 0);
        }
    }
}

#[test]
fn a_stop_from_another_thread_wakes_a_sleeping_poller() {
    let stop = Stop::new().unwrap();
    let mut poller = Poller::new().unwrap();
    poller.add(&stop, 9).unwrap();
    let remote = stop.clone();
    let requester = thread::spawn(move || remote.request());
    let waited = poller.wait(Some(WAIT_MAX_NS), 0).unwrap();
    assert_eq!((waited.ready, stop.requests()), (1, 1));
    requester.join().unwrap();
}

#[test]
fn a_stop_asked_for_before_it_was_watched_is_noticed() {
    let stop = Stop::new().unwrap();
    stop.request();
    let mut poller = Poller::new().unwrap();
    poller.add(&stop, 3).unwrap();
    assert_eq!(poller.wait(Some(WAIT_MAX_NS), 0).unwrap().ready, 1);
    assert_eq!(stop.requests(), 1);
}

#[test]
fn a_poller_watches_more_sockets_than_select_could() {
    const SOCKETS: usize = 1500;
    if let Err(shortfall) = limits::raise_open_files(SOCKETS as u64 + 200) {
        println!("skipped: {shortfall}");
        return;
    }
    let sender = socket();
    let sockets: Vec<Socket> = (0..SOCKETS).map(|_| socket()).collect();
    let mut poller = Poller::new().unwrap();
    for (token, receiver) in sockets.iter().enumerate() {
        poller.add(receiver, token as u64).unwrap();
        sender.send_to(b"x", receiver.local_addr()).unwrap();
    }
    let mut batch = ReceiveBatch::new(1, 10);
    let mut seen = vec![false; SOCKETS];
    while seen.contains(&false) {
        assert!(poller.wait(Some(WAIT_MAX_NS), 0).unwrap().ready > 0);
        for &token in poller.tokens() {
            assert!(!std::mem::replace(&mut seen[token as usize], true), "{token} twice");
            assert_eq!(batch.receive(&sockets[token as usize]).unwrap(), 1);
        }
    }
}
