//! The engine against a real server, without Node. `REDIS_SERVER` names the binary; the default is
//! `redis-server` on PATH.

use std::{
    collections::HashMap,
    net::{TcpListener, TcpStream},
    process::{Child, Command as Process, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use connect_redis_native::{
    command::{Command, Expiry, Reply, Swap},
    config::{Config, Endpoint, Servers},
    conflict::Conflict,
    core::{Circuit, Completion, Notice, Request, Work},
    driver::{self, Reading, Sink, Watch},
    error::{Error, ErrorCode},
    keyspace::{Keyspace, Question},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|probe| probe.local_addr())
            .expect("a free port")
            .port();
        Self::start_on(port)
    }

    fn start_on(port: u16) -> Self {
        let binary = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let process = Process::new(binary)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { process, port }
    }

    fn signal(&self, name: &str) {
        let status = Process::new("kill")
            .args([name, &self.process.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answers(Sender<Completion>, Sender<Notice>, Sender<Watch>);

impl Sink for Answers {
    fn deliver(&self, completions: &mut Vec<Completion>) -> bool {
        for completion in completions.drain(..) {
            let _ = self.0.send(completion);
        }
        true
    }

    fn notice(&self, notice: Notice) {
        let _ = self.1.send(notice);
    }

    fn watch(&self, watch: Watch) {
        let _ = self.2.send(watch);
    }
}

struct Store {
    engine: driver::Store,
    answers: Receiver<Completion>,
    notices: Receiver<Notice>,
    watches: Receiver<Watch>,
    command_timeout: Duration,
    next: u32,
}

impl Store {
    fn open(port: u16, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            command_timeout: Duration::from_secs(10),
            ..Config::new(Servers::One(Endpoint::Tcp {
                host: "127.0.0.1".into(),
                port,
            }))
        };
        change(&mut config);
        let command_timeout = config.command_timeout;
        let (sender, answers) = channel();
        let (notifier, notices) = channel();
        let (watcher, watches) = channel();
        let sink = Arc::new(Answers(sender, notifier, watcher));
        let engine = driver::Store::start(config, sink);
        Self {
            engine,
            answers,
            notices,
            watches,
            command_timeout,
            next: 0,
        }
    }

    /// Submits `works` as one batch and returns the number of the first.
    fn submit(&mut self, works: Vec<Work>) -> u32 {
        let first = self.next;
        let requests: Vec<_> = works
            .into_iter()
            .zip(first..)
            .map(|(work, id)| Request { id, work })
            .collect();
        self.next += u32::try_from(requests.len()).expect("few requests");
        self.engine.submit(
            requests.len(),
            0,
            Box::new(move || requests),
            self.command_timeout,
        );
        first
    }

    /// The answers to `count` requests. Each must come once.
    fn collect(&self, count: usize) -> HashMap<u32, Result<Reply, Error>> {
        let mut answers = HashMap::new();
        for _ in 0..count {
            let Completion { id, outcome } =
                self.answers.recv_timeout(PATIENCE).expect("an answer");
            assert!(answers.insert(id, outcome).is_none(), "answered twice");
        }
        answers
    }

    /// Waits for `notice`, whatever comes before it.
    fn expect(&self, notice: &Notice) {
        while self
            .notices
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("no {notice:?}"))
            != *notice
        {}
    }

    fn ask(&mut self, work: Work) -> Result<Reply, Error> {
        let id = self.submit(vec![work]);
        self.collect(1).remove(&id).expect("the answer to this")
    }
}

fn get(key: &str) -> Work {
    Work::Command(Command::Get { key: key.into() })
}

fn set(key: &str, value: &str) -> Work {
    Work::Command(Command::Set {
        key: key.into(),
        value: value.into(),
        expiry: Expiry::After(60_000),
        only_existing: false,
    })
}

fn ask_all(question: Question, prefix: &str) -> Work {
    Work::Keyspace(Keyspace {
        question,
        prefix: prefix.into(),
        count: 100,
        index_prefix: None,
    })
}

#[test]
fn gets_see_earlier_sets_in_the_order_of_the_requests() {
    let server = Server::start();
    let mut store = Store::open(server.port, |_| {});
    let works: Vec<_> = (0..500)
        .flat_map(|n| [set("key", &n.to_string()), get("key")])
        .collect();
    let first = store.submit(works);
    let answers = store.collect(1000);
    for n in 0..500 {
        assert_eq!(answers[&(first + 2 * n)], Ok(Reply::Ok));
        let expected = Reply::Text(n.to_string().into_bytes());
        assert_eq!(answers[&(first + 2 * n + 1)], Ok(expected));
    }
    assert_eq!(store.ask(get("none")), Ok(Reply::Nil));
}

#[test]
fn operations_on_all_keys_see_their_prefix_only() {
    let server = Server::start();
    let mut store = Store::open(server.port, |_| {});
    let works: Vec<_> = (0..3000)
        .map(|n| set(&format!("a*:{n}"), "1"))
        .chain([set("ab:1", "1")])
        .collect();
    store.submit(works);
    store.collect(3001);
    assert_eq!(
        store.ask(ask_all(Question::Length, "a*:")),
        Ok(Reply::Count(3000))
    );
    assert_eq!(
        store.ask(ask_all(Question::Ids, "ab:")),
        Ok(Reply::Texts(vec![Some(br#"["1"]"#.to_vec())]))
    );
    assert_eq!(
        store.ask(ask_all(Question::Clear, "a*:")),
        Ok(Reply::Count(3000))
    );
    assert_eq!(
        store.ask(ask_all(Question::Length, "")),
        Ok(Reply::Count(1))
    );
}

#[test]
fn requests_above_max_pending_fail_at_once() {
    let server = Server::start();
    let mut store = Store::open(server.port, |config| config.max_pending = 3);
    let first = store.submit((0..5).map(|_| get("key")).collect());
    let answers = store.collect(5);
    let full =
        |n: u32| matches!(&answers[&(first + n)], Err(error) if error.code == ErrorCode::QueueFull);
    assert_eq!(
        [full(0), full(1), full(2), full(3), full(4)],
        [false, false, false, true, true]
    );
    assert_eq!(store.ask(get("key")), Ok(Reply::Nil));
}

#[test]
fn without_a_server_requests_fail_with_connect_by_the_deadline() {
    let mut store = Store::open(1, |config| {
        config.command_timeout = Duration::from_millis(200);
    });
    let error = store.ask(get("key")).expect_err("no server");
    assert_eq!(error.code, ErrorCode::Connect);
    assert_eq!(error.cause_code(), Some("ECONNREFUSED"));
}

#[test]
fn a_frozen_server_causes_timeouts_and_is_used_again_when_it_continues() {
    let server = Server::start();
    let mut store = Store::open(server.port, |config| {
        config.command_timeout = Duration::from_millis(200);
    });
    let deadline = Instant::now() + PATIENCE;
    while store.ask(set("key", "1")) != Ok(Reply::Ok) {
        assert!(Instant::now() < deadline, "the server was not found");
    }
    server.signal("-STOP");
    store.submit((0..64).map(|_| get("key")).collect());
    for outcome in store.collect(64).into_values() {
        assert_eq!(outcome.expect_err("no answer").code, ErrorCode::Timeout);
    }
    server.signal("-CONT");
    let deadline = Instant::now() + PATIENCE;
    while store.ask(get("key")) != Ok(Reply::Text(b"1".to_vec())) {
        assert!(Instant::now() < deadline, "the server was not found again");
    }
}

#[test]
fn the_circuit_opens_when_nothing_answers_and_closes_when_the_server_is_back() {
    let server = Server::start();
    let port = server.port;
    let mut store = Store::open(port, |config| {
        config.command_timeout = Duration::from_millis(500);
    });
    store.expect(&Notice::Ready);
    drop(server);
    store.expect(&Notice::Reconnecting);
    store.expect(&Notice::Circuit(Circuit::Open));
    // An open circuit refuses this request, whatever its deadline.
    store.command_timeout = Duration::from_secs(3600);
    let error = store.ask(get("key")).expect_err("no server");
    assert_eq!(error.code, ErrorCode::Connect);
    assert!(error.message.contains("refused until"), "{error}");
    // An open port that does not reply: the attempt lasts long enough to be observed.
    let silent = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    store.expect(&Notice::Circuit(Circuit::HalfOpen));
    drop(silent);
    let _server = Server::start_on(port);
    store.expect(&Notice::Circuit(Circuit::Closed));
    store.expect(&Notice::Ready);
    assert_eq!(store.ask(get("key")), Ok(Reply::Nil));
}

#[test]
fn a_panic_is_reported_to_waiting_callers_and_ends_its_store_only() {
    let server = Server::start();
    let broken = Store::open(server.port, |_| {});
    let mut whole = Store::open(server.port, |_| {});
    broken.expect(&Notice::Ready);
    let panics = Box::new(|| panic!("a batch that cannot be read"));
    broken.engine.submit(1, 0, panics, PATIENCE);
    broken.expect(&Notice::Crashed);
    assert_eq!(whole.ask(get("key")), Ok(Reply::Nil));
}

#[test]
fn requests_of_a_lost_connection_are_repeated_in_order() {
    let server = Server::start();
    let port = server.port;
    let mut store = Store::open(port, |_| {});
    assert_eq!(store.ask(get("key")), Ok(Reply::Nil));
    server.signal("-STOP");
    let first = store.submit(vec![
        set("key", "old"),
        set("key", "new"),
        get("key"),
        set("other", "1"),
    ]);
    // All requests must be sent before the server dies, which only the socket shows.
    std::thread::sleep(Duration::from_millis(100));
    drop(server);
    let _second = Server::start_on(port);
    let answers = store.collect(4);
    // A SET is not repeated if a newer write follows, because it might undo that write.
    assert!(matches!(&answers[&first], Err(error) if error.code == ErrorCode::Connect));
    assert_eq!(answers[&(first + 1)], Ok(Reply::Ok));
    assert_eq!(answers[&(first + 2)], Ok(Reply::Text(b"new".to_vec())));
    assert_eq!(answers[&(first + 3)], Ok(Reply::Ok));
}

#[test]
fn close_answers_pending_requests() {
    let server = Server::start();
    let mut store = Store::open(server.port, |_| {});
    let first = store.submit((0..100).map(|n| set(&n.to_string(), "1")).collect());
    store.engine.close(1000);
    let answers = store.collect(101);
    assert!((first..first + 100).all(|id| answers[&id] == Ok(Reply::Ok)));
    assert_eq!(answers[&1000], Ok(Reply::Ok));
}

#[cfg(unix)]
#[test]
fn a_watched_connection_is_read_from_outside_and_its_end_is_seen() {
    let server = Server::start();
    let mut store = Store::open(server.port, |config| config.watched = true);
    let watch = store.watches.recv_timeout(PATIENCE).expect("a connection");
    let first = store.submit((0..100).map(|n| set(&n.to_string(), "1")).collect());
    let mut answers = HashMap::new();
    while answers.len() < 100 {
        assert_eq!(store.engine.read(&watch), Reading::On);
        answers.extend(store.answers.try_iter().map(|done| (done.id, done.outcome)));
    }
    assert!((first..first + 100).all(|id| answers[&id] == Ok(Reply::Ok)));
    drop(server);
    while store.engine.read(&watch) == Reading::On {}
    store.expect(&Notice::Reconnecting);
}

#[cfg(unix)]
#[test]
fn replies_that_arrived_by_their_deadline_count_after_a_busy_event_loop() {
    let server = Server::start();
    let mut store = Store::open(server.port, |config| {
        config.watched = true;
        config.command_timeout = Duration::from_millis(200);
    });
    store.watches.recv_timeout(PATIENCE).expect("a connection");
    assert_eq!(store.ask(set("key", "value")), Ok(Reply::Ok));
    assert_eq!(store.ask(get("key")), Ok(Reply::Text(b"value".to_vec())));
}

#[test]
fn a_swap_writes_over_the_expected_value_only_and_a_merge_over_other_values() {
    let server = Server::start();
    let mut store = Store::open(server.port, |_| {});
    let swap = |base: &str, value: &str| {
        let (base, value) = (base.as_bytes().to_vec(), value.as_bytes().to_vec());
        let expiry = Expiry::After(60_000);
        Work::Command(Command::Swap(Swap::new(
            b"key".to_vec(),
            base,
            value,
            expiry,
        )))
    };
    let text = |text: &str| Ok(Reply::Text(text.as_bytes().to_vec()));
    assert_eq!(store.ask(swap("{}", "{}")), Ok(Reply::Nil));
    store.ask(set("key", "{}")).expect("an answer");
    assert_eq!(store.ask(swap("{}", r#"{"a":1}"#)), Ok(Reply::Ok));
    // No reply was lost, so a value equal to its own comes from another writer.
    assert_eq!(store.ask(swap("{}", r#"{"a":1}"#)), text(r#"{"a":1}"#));
    assert_eq!(store.ask(swap("{}", r#"{"b":1}"#)), text(r#"{"a":1}"#));

    let conflict = Conflict {
        key: b"key".to_vec(),
        base: b"{}".to_vec(),
        mine: br#"{"b":1}"#.to_vec(),
        // Outdated: the merge detects that.
        theirs: b"{}".to_vec(),
        expiry: Expiry::After(60_000),
        sealer: None,
    };
    assert_eq!(
        store.ask(Work::Merge(Box::new(conflict), PATIENCE)),
        text("[]")
    );
    assert_eq!(store.ask(get("key")), text(r#"{"a":1,"b":1}"#));
}
