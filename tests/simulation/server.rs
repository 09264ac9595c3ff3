//! Fake servers with data and slots, which misbehave on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use connect_redis_native::connection::cluster::slot_of;

/// A value and when it expires.
#[derive(Clone)]
pub struct Stored {
    pub value: Vec<u8>,
    pub expires: Option<Duration>,
}

/// The data of all servers: replicas are exact copies.
#[derive(Clone, Default)]
pub struct Data(pub BTreeMap<Vec<u8>, Stored>);

/// The owners of slots.
pub struct Slots {
    pub owner: Vec<Option<usize>>,
    /// The slot that is moving, and its destination.
    pub moving: Option<(u16, usize)>,
    /// Keys of that slot that are at the destination already.
    pub moved: BTreeSet<Vec<u8>>,
}

/// The behaviour of a server.
#[derive(Clone, Default)]
pub struct Server {
    pub is_down: bool,
    pub is_frozen: bool,
    pub is_loading: bool,
    pub is_out_of_memory: bool,
    pub is_replica: bool,
    pub is_cluster_down: bool,
    pub denies_asking: bool,
    pub has_script: bool,
    /// It redirects every key to this server.
    pub moves_all_to: Option<usize>,
    /// Its SCAN never ends.
    pub scans_for_ever: bool,
    /// This does not end.
    pub is_a_strange_proxy: bool,
    /// Its replies are an endless array, or garbage.
    pub is_endless: bool,
    pub is_garbled: bool,
    /// It replies with this map instead of the real one.
    pub stale_map: Option<Vec<Option<usize>>>,
    pub knows_ifeq: bool,
}

/// The state of one connection on a server.
#[derive(Default)]
pub struct Session {
    pub input: Vec<u8>,
    pub is_asking: bool,
    /// Its last ASKING was refused.
    pub is_denied: bool,
}

/// Removes the next complete command from `input`.
pub fn next_command(input: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut at = 0;
    let count = line(input, &mut at, b'*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = line(input, &mut at, b'$')?;
        words.push(input.get(at..at + length)?.to_vec());
        at += length + 2;
    }
    if at > input.len() {
        return None;
    }
    input.drain(..at);
    Some(words)
}

fn line(input: &[u8], at: &mut usize, kind: u8) -> Option<usize> {
    let rest = input.get(*at..)?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    assert_eq!(rest[0], kind, "a malformed command");
    *at += end + 1;
    std::str::from_utf8(&rest[1..end - 1]).ok()?.parse().ok()
}

pub fn port_of(server: usize) -> u16 {
    7000 + server as u16
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", bytes.len()).into_bytes();
    reply.extend_from_slice(bytes);
    reply.extend_from_slice(b"\r\n");
    reply
}

fn text(reply: &str) -> Vec<u8> {
    format!("{reply}\r\n").into_bytes()
}

impl Data {
    fn get(&mut self, key: &[u8], now: Duration) -> Option<&mut Stored> {
        let is_dead = |stored: &Stored| stored.expires.is_some_and(|at| at <= now);
        if self.0.get(key).is_some_and(is_dead) {
            self.0.remove(key);
        }
        self.0.get_mut(key)
    }

    /// The scripts of markers: DESTROY has one argument.
    fn marker_script(&mut self, keys: &[Vec<u8>], arguments: &[Vec<u8>], now: Duration) -> Vec<u8> {
        let number = |bytes: &[u8]| -> i64 {
            let text = std::str::from_utf8(bytes).expect("a number");
            text.parse().expect("a number")
        };
        let after = |ms: &[u8]| Some(now + Duration::from_millis(number(ms).max(0) as u64));
        if let [life] = arguments {
            let marker = Stored {
                value: Vec::new(),
                expires: after(life),
            };
            self.0.insert(keys[0].clone(), marker);
            let removed = keys[1..].iter().filter(|key| self.0.remove(*key).is_some());
            return text(&format!(":{}", removed.count()));
        }
        let known = number(&arguments[3]);
        let ends = keys[1..].iter().filter_map(|marker| {
            let expires = self.get(marker, now)?.expires?;
            Some(expires.as_millis() as i64)
        });
        let newest = ends.max().unwrap_or(-1);
        if newest > known {
            let left = newest - now.as_millis() as i64;
            return text(&format!("*2\r\n:{left}\r\n:{newest}"));
        }
        let stored = Stored {
            value: arguments[0].clone(),
            expires: after(&arguments[1]),
        };
        self.0.insert(keys[0].clone(), stored);
        text("+OK")
    }

    /// Runs a command that is served.
    pub fn run(&mut self, server: &mut Server, words: &[Vec<u8>], now: Duration) -> Vec<u8> {
        let word = |at: usize| words.get(at).map_or(b"".as_slice(), Vec::as_slice);
        let number = |bytes: &[u8]| -> u64 {
            let text = std::str::from_utf8(bytes).expect("a number");
            text.parse::<i64>().expect("a number").max(0) as u64
        };
        match word(0) {
            b"GET" => match self.get(word(1), now) {
                Some(stored) => bulk(&stored.value),
                None => text("$-1"),
            },
            b"SET" => {
                let has = |flag: &[u8]| words[3..].iter().position(|word| word == flag);
                if has(b"IFEQ").is_some() && !server.knows_ifeq {
                    return text("-ERR syntax error");
                }
                let before = self.get(word(1), now).cloned();
                if has(b"XX").is_some() && before.is_none() {
                    return text("$-1");
                }
                let expires = match has(b"PX") {
                    Some(at) => Some(now + Duration::from_millis(number(word(at + 4)))),
                    None if has(b"KEEPTTL").is_some() => before.as_ref().and_then(|it| it.expires),
                    None => None,
                };
                let stored = Stored {
                    value: word(2).to_vec(),
                    expires,
                };
                if let Some(at) = has(b"IFEQ") {
                    let is_equal = before.as_ref().is_some_and(|it| it.value == word(at + 4));
                    if is_equal {
                        self.0.insert(word(1).to_vec(), stored);
                    }
                    return before.map_or(text("$-1"), |it| bulk(&it.value));
                }
                self.0.insert(word(1).to_vec(), stored);
                text("+OK")
            }
            b"EVALSHA" if !server.has_script => text("-NOSCRIPT No matching script."),
            b"EVAL" | b"EVALSHA" if number(word(2)) > 1 => {
                server.has_script = true;
                let keys = number(word(2)) as usize;
                self.marker_script(&words[3..3 + keys], &words[3 + keys..], now)
            }
            b"EVAL" | b"EVALSHA" => {
                server.has_script = true;
                let (key, base, value) = (word(3), word(4), word(5));
                match self.get(key, now) {
                    None => text("$-1"),
                    Some(stored) if stored.value == base => {
                        stored.value = value.to_vec();
                        text("+OK")
                    }
                    Some(stored) => bulk(&stored.value),
                }
            }
            b"PEXPIRE" => match self.get(word(1), now) {
                None => text(":0"),
                Some(stored) => {
                    stored.expires = Some(now + Duration::from_millis(number(word(2))));
                    text(":1")
                }
            },
            b"PTTL" => match self.get(word(1), now) {
                None => text(":-2"),
                Some(Stored { expires: None, .. }) => text(":-1"),
                Some(Stored {
                    expires: Some(at), ..
                }) => text(&format!(":{}", at.saturating_sub(now).as_millis())),
            },
            b"DEL" | b"UNLINK" => {
                let mut count = 0;
                for key in &words[1..] {
                    count += u8::from(self.0.remove(key).is_some());
                }
                text(&format!(":{count}"))
            }
            b"PING" => text("+PONG"),
            b"MGET" => {
                let mut reply = text(&format!("*{}", words.len() - 1));
                for key in &words[1..] {
                    match self.get(key, now) {
                        Some(stored) => reply.extend(bulk(&stored.value)),
                        None => reply.extend(text("$-1")),
                    }
                }
                reply
            }
            b"SCAN" => {
                let from = number(word(1)) as usize;
                let keys: Vec<_> = self.0.keys().skip(from).take(3).cloned().collect();
                let next = if from + keys.len() < self.0.len() {
                    from + keys.len()
                } else {
                    0
                };
                let next = if server.scans_for_ever || server.is_a_strange_proxy {
                    7
                } else {
                    next
                };
                let mut reply = text("*2");
                reply.extend(bulk(next.to_string().as_bytes()));
                reply.extend(text(&format!("*{}", keys.len())));
                for key in keys {
                    reply.extend(bulk(&key));
                }
                reply
            }
            other => panic!("{} is unknown", String::from_utf8_lossy(other)),
        }
    }
}

/// The key of a command.
pub fn key_of(words: &[Vec<u8>]) -> Option<&[u8]> {
    let at = match words[0].as_slice() {
        // DESTROY names its marker first, and has one argument.
        b"EVAL" | b"EVALSHA" if words[2] != b"1" && words.len() < 8 => 4,
        b"EVAL" | b"EVALSHA" => 3,
        b"SCAN" | b"PING" | b"CLUSTER" | b"ASKING" => return None,
        _ => 1,
    };
    words.get(at).map(Vec::as_slice)
}

fn is_write(words: &[Vec<u8>]) -> bool {
    !matches!(
        words[0].as_slice(),
        b"GET" | b"MGET" | b"PTTL" | b"SCAN" | b"PING"
    )
}

/// The error reply if `server` does not serve a command.
pub fn refusal(
    server: &Server,
    at: usize,
    slots: Option<&Slots>,
    session: &mut Session,
    words: &[Vec<u8>],
    exists: bool,
) -> Option<Vec<u8>> {
    let is_asking = std::mem::take(&mut session.is_asking);
    if server.is_loading {
        return Some(text("-LOADING Redis is loading the dataset in memory"));
    }
    if let (Some(slots), Some(key)) = (slots, key_of(words)) {
        let slot = slot_of(key);
        if server.is_cluster_down {
            return Some(text("-CLUSTERDOWN The cluster is down"));
        }
        if let Some(to) = server.moves_all_to {
            return Some(text(&format!("-MOVED {slot} 127.0.0.1:{}", port_of(to))));
        }
        let is_moving = slots.moving.filter(|(moving, _)| *moving == slot);
        match (slots.owner[usize::from(slot)], is_moving) {
            (Some(owner), Some((_, to))) if owner == at && to != at => {
                if !exists || slots.moved.contains(key) {
                    return Some(text(&format!("-ASK {slot} 127.0.0.1:{}", port_of(to))));
                }
            }
            (Some(owner), _) if owner == at => {}
            (Some(_), Some((_, to))) if to == at && is_asking => {}
            (Some(owner), _) => {
                return Some(text(&format!("-MOVED {slot} 127.0.0.1:{}", port_of(owner))));
            }
            (None, _) => return Some(text("-CLUSTERDOWN Hash slot not served")),
        }
    }
    if server.is_replica && is_write(words) {
        return Some(text(
            "-READONLY You can't write against a read only replica.",
        ));
    }
    if server.is_out_of_memory && matches!(words[0].as_slice(), b"SET" | b"EVAL" | b"EVALSHA") {
        return Some(text(
            "-OOM command not allowed when used memory > 'maxmemory'.",
        ));
    }
    None
}

/// The reply to CLUSTER SLOTS.
pub fn map_reply(owners: &[Option<usize>]) -> Vec<u8> {
    let ranges = ranges(owners);
    let mut reply = text(&format!("*{}", ranges.len()));
    for (first, last, owner) in ranges {
        let port = port_of(owner);
        reply.extend(
            format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n").bytes(),
        );
    }
    reply
}

/// Neighbouring slots of one owner.
pub fn ranges(owners: &[Option<usize>]) -> Vec<(u16, u16, usize)> {
    let mut ranges: Vec<(u16, u16, usize)> = Vec::new();
    for (slot, owner) in owners.iter().enumerate() {
        let (Some(owner), slot) = (*owner, slot as u16) else {
            continue;
        };
        match ranges.last_mut() {
            Some((_, last, by)) if *by == owner && *last + 1 == slot => *last = slot,
            _ => ranges.push((slot, slot, owner)),
        }
    }
    ranges
}
