//! The state machine, tested by its inputs and effects without a driver.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use connect_redis_native::{
    command::{Command, Expiry, Reply, Swap},
    config::{Config, Endpoint, Servers},
    connection::{Opened, Target},
    core::{Action, Completion, Connection, Core, Request, Work},
    error::{Error, ErrorCode},
    keyspace::{Keyspace, Question},
    marker::{By, Mode, Restore},
};

const TIMEOUT: Duration = Duration::from_secs(2);

struct Store {
    core: Core,
    now: Instant,
    next: u32,
}

fn endpoint(port: u16) -> Endpoint {
    let host = "127.0.0.1".into();
    Endpoint::Tcp { host, port }
}

impl Store {
    fn new(servers: Servers) -> Self {
        Self::touching_after(Duration::ZERO, servers)
    }

    fn touching_after(touch_after: Duration, servers: Servers) -> Self {
        let config = Config {
            command_timeout: TIMEOUT,
            touch_after,
            ..Config::new(servers)
        };
        let now = Instant::now();
        let core = Core::new(Arc::new(config), now, 1);
        let next = 0;
        Self { core, now, next }
    }

    /// A store of one server, connected.
    fn single() -> (Self, Connection) {
        let mut store = Self::new(Servers::One(endpoint(1)));
        let connection = store.open();
        (store, connection)
    }

    /// A cluster of one server that serves every slot, connected.
    fn cluster() -> (Self, Connection) {
        let mut store = Self::new(Servers::Cluster(vec![endpoint(1)]));
        assert!(matches!(store.actions()[..], [Action::Discover]));
        let map = vec![(0, 16383, endpoint(1))];
        store.core.on_discovered(Ok(map), store.now);
        let connection = store.open();
        (store, connection)
    }

    fn end_turn(&mut self) {
        self.core.end_turn(self.now);
    }

    fn actions(&mut self) -> Vec<Action> {
        self.end_turn();
        std::mem::take(&mut self.core.take_turn().actions)
    }

    /// The attempts to connect of this turn.
    fn attempts(&mut self) -> Vec<(Connection, Target)> {
        let opens = self
            .actions()
            .into_iter()
            .filter_map(|action| match action {
                Action::Open {
                    connection, target, ..
                } => Some((connection, target)),
                _ => None,
            });
        opens.collect()
    }

    /// Lets the one attempt of this turn succeed.
    fn open(&mut self) -> Connection {
        let attempts = self.attempts();
        let [(connection, _)] = &attempts[..] else {
            panic!("{} attempts to connect", attempts.len());
        };
        self.core
            .on_open(*connection, Ok(Opened::default()), self.now);
        self.end_turn();
        *connection
    }

    /// Waits for the next attempt to connect, which succeeds.
    fn open_again(&mut self) -> Connection {
        loop {
            self.now = self.core.wake_at().expect("an attempt that is due");
            self.core.on_timer(self.now);
            let attempts = self.attempts();
            if let Some(&(connection, _)) = attempts.first() {
                let opened = Ok(Opened::default());
                self.core.on_open(connection, opened, self.now);
                self.end_turn();
                return connection;
            }
        }
    }

    fn ask(&mut self, command: Command) -> u32 {
        self.ask_work(Work::Command(command))
    }

    fn ask_work(&mut self, work: Work) -> u32 {
        let id = self.next;
        self.next += 1;
        let admitted = self.core.admit(1);
        let requests = vec![Request { id, work }];
        self.core
            .submit(requests, admitted, self.now + TIMEOUT, self.now);
        self.end_turn();
        id
    }

    /// The output, which is then marked as written.
    fn written(&mut self, connection: Connection) -> String {
        let output = self.core.output(connection).to_vec();
        self.core.on_written(connection, output.len());
        String::from_utf8_lossy(&output).into_owned()
    }

    fn reply(&mut self, connection: Connection, bytes: &str) {
        let room = self.core.room(connection).expect("an open connection");
        room[..bytes.len()].copy_from_slice(bytes.as_bytes());
        self.core.on_read(connection, bytes.len(), self.now);
        self.end_turn();
    }

    fn lose(&mut self, connection: Connection) {
        let error = Error::new(ErrorCode::Connect, "lost");
        self.core.on_lost(connection, &error, self.now);
        self.end_turn();
    }

    /// Moves the clock to the next timer.
    fn sleep(&mut self) {
        self.now = self.core.wake_at().expect("something to wait for");
        self.core.on_timer(self.now);
        self.end_turn();
    }

    fn answers(&mut self) -> Vec<(u32, Result<Reply, ErrorCode>)> {
        let completions = std::mem::take(&mut self.core.take_turn().completions);
        let answer = |Completion { id, outcome }| (id, outcome.map_err(|error| error.code));
        completions.into_iter().map(answer).collect()
    }
}

fn get(key: &str) -> Command {
    Command::Get { key: key.into() }
}

fn set(key: &str, value: &str) -> Command {
    Command::Set {
        key: key.into(),
        value: value.into(),
        expiry: Expiry::Never,
        only_existing: false,
    }
}

#[test]
fn a_silent_connection_after_a_refusal_is_replaced() {
    let (mut store, connection) = Store::single();
    let (first, second) = (store.ask(get("a")), store.ask(get("b")));
    store.written(connection);
    store.reply(connection, "-LOADING Redis is loading\r\n");
    let start = store.now;
    while store.core.is_open(connection) {
        store.sleep();
        store.written(connection);
    }
    assert!(store.now <= start + TIMEOUT + Duration::from_millis(1));
    let mut ids: Vec<_> = store.answers().into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [first, second]);
}

#[test]
fn only_written_requests_use_up_their_retry() {
    let (mut store, mut connection) = Store::single();
    let written = store.ask(get("a"));
    store.written(connection);
    let unwritten = store.ask(get("b"));
    store.lose(connection);
    connection = store.open_again();
    // The system accepts the first command only.
    let first = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
    store.core.on_written(connection, first.len());
    store.lose(connection);
    connection = store.open_again();
    assert_eq!(store.answers(), [(written, Err(ErrorCode::Connect))]);
    assert!(store.written(connection).contains("$1\r\nb"));
    store.reply(connection, "$-1\r\n");
    assert_eq!(store.answers(), [(unwritten, Ok(Reply::Nil))]);
}

#[test]
fn a_slot_that_moves_back_and_forth_is_followed_a_few_times() {
    let (mut store, connection) = Store::cluster();
    let id = store.ask(get("a"));
    let mut sends = 0;
    let answers = loop {
        let answers = store.answers();
        if !answers.is_empty() {
            break answers;
        }
        if store.written(connection).contains("GET") {
            sends += 1;
            store.reply(connection, "-MOVED 15495 127.0.0.1:1\r\n");
        } else {
            store.sleep();
        }
    };
    assert_eq!(answers[0].0, id);
    assert!(answers[0].1.is_err());
    assert!((2..=17).contains(&sends), "{sends} sends");
}

#[test]
fn the_map_is_requested_over_the_open_connection() {
    let (mut store, connection) = Store::cluster();
    store.ask(get("a"));
    store.written(connection);
    store.reply(connection, "-MOVED 15495 127.0.0.1:2\r\n");
    let attempts = store.attempts();
    assert!(matches!(&attempts[..], [(_, Target::Server(to))] if *to == endpoint(2)));
    while !store.written(connection).contains("SLOTS") {
        store.sleep();
        assert!(
            !store
                .actions()
                .iter()
                .any(|it| matches!(it, Action::Discover))
        );
    }
}

#[test]
fn an_operation_on_all_keys_waits_for_a_newer_map() {
    let (mut store, former) = Store::cluster();
    store.ask(get("a"));
    store.written(former);
    store.reply(former, "-MOVED 15495 127.0.0.1:2\r\n");
    let promoted = store.open();
    assert!(store.written(promoted).contains("GET"));
    store.reply(promoted, "$-1\r\n");
    store.ask_work(Work::Keyspace(Keyspace {
        question: Question::Length,
        prefix: b"sess:".to_vec(),
        index_prefix: None,
        count: 10,
    }));
    let mut asked = String::new();
    while asked.is_empty() {
        assert_eq!(store.written(former), "");
        store.sleep();
        asked = store.written(promoted);
    }
    assert!(asked.contains("SLOTS"), "{asked}");
    let map = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:2\r\n";
    store.reply(promoted, map);
    assert!(store.written(promoted).contains("SCAN"));
    assert_eq!(store.written(former), "");
}

#[test]
fn a_refused_asking_is_the_answer() {
    let (mut store, source) = Store::cluster();
    let id = store.ask(get("a"));
    store.written(source);
    let room = store.core.room(source).expect("an open connection");
    let ask = b"-ASK 15495 127.0.0.1:2\r\n";
    room[..ask.len()].copy_from_slice(ask);
    store.core.on_read(source, ask.len(), store.now);
    let target = store.open();
    assert!(store.written(target).starts_with("*1\r\n$6\r\nASKING\r\n"));
    store.reply(target, "-NOPERM no asking\r\n-MOVED 15495 127.0.0.1:1\r\n");
    assert_eq!(store.answers(), [(id, Err(ErrorCode::Auth))]);
}

#[test]
fn a_get_after_a_repeated_swap_sees_its_value() {
    let (mut store, connection) = Store::single();
    let swap = Swap::new("a".into(), "old".into(), "new".into(), Expiry::Never);
    let (swap, get) = (store.ask(Command::Swap(swap)), store.ask(get("a")));
    assert!(store.written(connection).contains("EVALSHA"));
    store.reply(connection, "-NOSCRIPT none\r\n");
    assert_eq!(
        store.written(connection),
        "",
        "not before the get is answered"
    );
    store.reply(connection, "$3\r\nold\r\n");
    assert!(store.answers().is_empty());
    let again = store.written(connection);
    let at = |word: &str| again.find(word).expect("both are sent again");
    assert!(at("EVAL") < at("GET"));
    store.reply(connection, "+OK\r\n$3\r\nnew\r\n");
    let new = Reply::Text(b"new".to_vec());
    assert_eq!(store.answers(), [(swap, Ok(Reply::Ok)), (get, Ok(new))]);
}

#[test]
fn a_refused_write_does_not_undo_a_later_one() {
    let (mut store, connection) = Store::single();
    let (old, new) = (store.ask(set("a", "old")), store.ask(set("a", "new")));
    store.written(connection);
    store.reply(connection, "-LOADING Redis is loading\r\n+OK\r\n");
    let answers = store.answers();
    assert_eq!(
        answers,
        [(old, Err(ErrorCode::Connect)), (new, Ok(Reply::Ok))]
    );
    store.sleep();
    assert_eq!(store.written(connection), "");
}

#[test]
fn a_refused_swap_is_repeated_after_a_later_one() {
    let (mut store, connection) = Store::single();
    let swap = |value: &str| {
        let swap = Swap::new("a".into(), "old".into(), value.into(), Expiry::Never);
        Command::Swap(swap)
    };
    let (first, second) = (store.ask(swap("1")), store.ask(swap("2")));
    store.written(connection);
    // Another process has sent the script in the meantime.
    store.reply(connection, "-NOSCRIPT none\r\n+OK\r\n");
    assert_eq!(store.answers(), [(second, Ok(Reply::Ok))]);
    assert!(store.written(connection).contains("EVAL"));
    store.reply(connection, "$1\r\n2\r\n");
    let conflict = Ok(Reply::Text(b"2".to_vec()));
    assert_eq!(store.answers(), [(first, conflict)]);
}

#[test]
fn a_refused_swap_does_not_undo_a_later_request() {
    let removal = || Swap::new("a".into(), "old".into(), "".into(), Expiry::After(0));
    // By DEL, by a comparison, and by a SET of the value that the swap expects.
    for later in [
        Command::Del { key: "a".into() },
        Command::Swap(removal()),
        set("a", "old"),
    ] {
        let (mut store, connection) = Store::single();
        let swap = Swap::new("a".into(), "old".into(), "new".into(), Expiry::Never);
        let swap = store.ask(Command::Swap(swap));
        let removes = matches!(later, Command::Del { .. });
        store.ask(later);
        store.written(connection);
        let done = if removes { ":1" } else { "+OK" };
        store.reply(
            connection,
            &format!("-LOADING Redis is loading\r\n{done}\r\n"),
        );
        assert_eq!(store.answers()[0], (swap, Err(ErrorCode::Connect)));
        store.sleep();
        assert_eq!(store.written(connection), "");
    }
}

#[test]
fn a_refused_write_is_repeated_after_a_later_one_that_wrote_nothing() {
    let (mut store, connection) = Store::single();
    let swap = Swap::new("a".into(), "old".into(), "new".into(), Expiry::Never);
    let (set, swap) = (store.ask(set("a", "1")), store.ask(Command::Swap(swap)));
    store.written(connection);
    store.reply(connection, "-LOADING Redis is loading\r\n$1\r\n0\r\n");
    let conflict = Ok(Reply::Text(b"0".to_vec()));
    assert_eq!(store.answers(), [(swap, conflict)]);
    store.sleep();
    assert!(store.written(connection).contains("SET"));
    store.reply(connection, "+OK\r\n");
    assert_eq!(store.answers(), [(set, Ok(Reply::Ok))]);
}

fn restore(mode: Mode, expiry: Expiry) -> Command {
    Command::Restore(Box::new(Restore {
        key: "a".into(),
        value: "new".into(),
        expiry,
        markers: vec!["m".into()],
        known: -1,
        mode,
        by: By::Hash,
        repeated: false,
    }))
}

#[test]
fn a_question_for_a_marker_is_no_touch() {
    let hour = Duration::from_secs(3600);
    let mut store = Store::touching_after(hour / 6, Servers::One(endpoint(1)));
    let connection = store.open();
    for (mode, is_touch) in [(Mode::Ask, false), (Mode::Write, true)] {
        let expire_ms = 3_600_000;
        store.ask(restore(mode, Expiry::After(3_600_000)));
        store.written(connection);
        store.reply(connection, "+OK\r\n");
        store.answers();
        let key = "a".into();
        store.ask(Command::Expire { key, expire_ms });
        assert_eq!(store.written(connection).is_empty(), is_touch, "{mode:?}");
        if !is_touch {
            store.reply(connection, ":0\r\n");
        }
        store.answers();
    }
}

#[test]
fn a_refused_write_is_repeated_after_a_save_that_a_marker_stopped() {
    let (mut store, connection) = Store::single();
    let set = store.ask(set("a", "1"));
    let restore = store.ask(restore(Mode::Write, Expiry::Never));
    store.written(connection);
    store.reply(
        connection,
        "-LOADING Redis is loading\r\n*2\r\n:5\r\n:6\r\n",
    );
    let marker = Reply::Marker { left: 5, end: 6 };
    assert_eq!(store.answers(), [(restore, Ok(marker))]);
    store.sleep();
    assert!(store.written(connection).contains("SET"));
    store.reply(connection, "+OK\r\n");
    assert_eq!(store.answers(), [(set, Ok(Reply::Ok))]);
}

#[test]
fn a_reply_of_another_type_ends_the_connection() {
    let (mut store, connection) = Store::single();
    let (first, _) = (store.ask(get("a")), store.ask(get("b")));
    store.written(connection);
    store.reply(connection, ":1\r\n$1\r\na\r\n");
    assert!(!store.core.is_open(connection));
    assert_eq!(store.answers(), [(first, Err(ErrorCode::Decode))]);
}

#[test]
fn a_refused_command_without_a_key_is_sent_again_after_a_pause() {
    let (mut store, connection) = Store::single();
    store.ask(Command::Ping);
    for _ in 0..3 {
        assert!(store.written(connection).contains("PING"));
        store.reply(connection, "-LOADING Redis is loading\r\n");
        assert_eq!(store.written(connection), "");
        let before = store.now;
        store.sleep();
        assert!(store.now >= before + Duration::from_millis(50));
    }
}
