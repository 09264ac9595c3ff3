//! Sealing for JavaScript: a store's own [`Sealing`], and the replies of a connection that are opened on their
//! way out.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use napi::{Status, bindgen_prelude::Uint8Array};
use napi_derive::napi;

use super::texts::Text;
use crate::{
    command::Reply,
    error::{Error, ErrorCode},
    sealing::{self, Halves, KEY_ID_MAX_BYTES, Key, Plaintext, Sealer},
};

/// One key, checked by lib/sealing/keys.js.
#[napi(object, object_to_js = false)]
pub struct SealingKey {
    /// Its name in stored values.
    pub id: String,
    /// 32 bytes.
    pub key: Uint8Array,
}

/// How a store keeps its sessions.
#[napi(object, object_to_js = false)]
pub struct SealingSettings {
    /// The first one seals, all open; none for no encryption.
    pub keys: Vec<SealingKey>,
    /// "accept", "reject" or "write".
    pub plaintext: String,
    /// Texts that are shorter are not compressed.
    pub compressed_from: Option<f64>,
    /// The longest session that is expanded, in bytes.
    pub max_bytes: f64,
    /// What the client puts before every key.
    pub key_prefix: String,
}

/// How one store keeps its sessions: encrypted, compressed or both.
#[napi]
pub struct Sealing {
    inner: Arc<sealing::Sealing>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "Node-API gives values, not references"
)]
#[napi]
impl Sealing {
    /// Prepares the keys.
    #[napi(constructor, catch_unwind)]
    pub fn new(settings: SealingSettings) -> napi::Result<Self> {
        let keys = settings.keys.iter().map(|SealingKey { id, key }| {
            let is_short = !id.is_empty() && id.len() <= KEY_ID_MAX_BYTES;
            Key::new(id, key).filter(|_| is_short)
        });
        let keys = keys.collect::<Option<Vec<_>>>();
        let keys = keys.ok_or_else(|| napi::Error::from_reason("A key is not one."))?;
        let plaintext = match settings.plaintext.as_str() {
            "accept" => Plaintext::Accept,
            "write" => Plaintext::Write,
            _ => Plaintext::Reject,
        };
        let inner = sealing::Sealing::new(
            keys,
            plaintext,
            settings.compressed_from.map(|least| least as usize),
            settings.max_bytes as usize,
            settings.key_prefix.into_bytes(),
        );
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What is to be stored under `key` for the session `text`. `key` is without the client's prefix.
    #[napi(catch_unwind)]
    pub fn seal(&self, key: String, text: String) -> napi::Result<Text> {
        let mut halves = Halves::of(1);
        let sealed = self
            .inner
            .seal(key.as_bytes(), text.as_bytes(), &mut halves);
        sealed.map(Text::new).map_err(thrown)
    }

    /// The session that is `stored` under `key`.
    #[napi(catch_unwind)]
    pub fn open(&self, key: String, stored: String) -> napi::Result<Text> {
        let opened = self.inner.open(key.as_bytes(), stored.into_bytes());
        opened.map(Text::new).map_err(thrown)
    }

    /// What is `stored` under `key` as it would be sealed now; none if it is so already.
    #[napi(catch_unwind)]
    pub fn resealed(&self, key: String, stored: String) -> napi::Result<Option<Text>> {
        let resealed = self.inner.resealed(key.as_bytes(), stored.as_bytes());
        resealed
            .map(|resealed| resealed.map(Text::new))
            .map_err(thrown)
    }

    pub(super) fn inner(&self) -> &Arc<sealing::Sealing> {
        &self.inner
    }
}

fn thrown(error: Error) -> napi::Error {
    napi::Error::new(Status::GenericFailure, error.message)
}

/// How the stores of one connection seal, by their numbers on the boundary, from 1 on; and the gets under way
/// whose replies are to be opened, by the numbers of their requests.
#[derive(Default)]
pub struct Sealers {
    places: Mutex<Vec<Place>>,
    gets: Mutex<Vec<Get>>,
    /// A reply was to be opened: only then is anything locked. It is set before that request is sent.
    is_used: AtomicBool,
}

/// A store's sealing, which is the store's: keys end with it. While it is there, its requests and the batch that
/// knows its number hold it; after that its place is free.
struct Place {
    sealing: Weak<sealing::Sealing>,
    key_prefix_bytes: usize,
}

impl Place {
    fn sealer(&self) -> Option<Sealer> {
        Some(Sealer {
            sealing: self.sealing.upgrade()?,
            key_prefix_bytes: self.key_prefix_bytes,
        })
    }
}

/// By the number of its request; its memory is used again.
#[derive(Default)]
struct Get {
    sealer: u32,
    key: Vec<u8>,
}

impl Sealers {
    /// The number of `sealing` from now on, for keys that begin with so many bytes of the client.
    pub fn add(&self, sealing: &Arc<sealing::Sealing>, key_prefix_bytes: usize) -> u32 {
        let place = Place {
            sealing: Arc::downgrade(sealing),
            key_prefix_bytes,
        };
        // Poisoned or not, nothing in here can panic half-way.
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let free = places
            .iter()
            .position(|place| place.sealing.strong_count() == 0);
        let at = free.unwrap_or(places.len());
        if at < places.len() {
            places[at] = place;
        } else {
            places.push(place);
        }
        at as u32 + 1
    }

    /// Finds each sealer of a batch of requests or answers once.
    pub fn finder(&self) -> Finder<'_> {
        Finder {
            sealers: self,
            found: None,
        }
    }

    /// The replies to requests are to be opened: their numbers, those of their sealers, and their keys.
    pub fn expect<'a>(&self, requests: impl Iterator<Item = (u32, u32, &'a [u8])>) {
        self.is_used.store(true, Ordering::Release);
        let mut gets = self.gets.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, sealer, key) in requests {
            let at = id as usize;
            if gets.len() <= at {
                gets.resize_with(at + 1, Get::default);
            }
            let get = &mut gets[at];
            get.sealer = sealer;
            get.key.clear();
            get.key.extend_from_slice(key);
        }
    }

    /// Opens replies, if any has to be opened, or had to be. Other threads wait with their requests meanwhile.
    pub fn opener(&self) -> Option<Opener<'_>> {
        self.is_used.load(Ordering::Acquire).then(|| Opener {
            finder: self.finder(),
            gets: self.gets.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }
}

/// Finds sealers by their numbers.
pub struct Finder<'a> {
    sealers: &'a Sealers,
    found: Option<(u32, Sealer)>,
}

impl Finder<'_> {
    /// The one with this number; none is 0.
    pub fn of(&mut self, number: u32) -> Result<Option<&Sealer>, Error> {
        let Some(at) = number.checked_sub(1) else {
            return Ok(None);
        };
        if self.found.as_ref().is_none_or(|(of, _)| *of != number) {
            let places = self.sealers.places.lock();
            let places = places.unwrap_or_else(PoisonError::into_inner);
            let unknown = || Error::new(ErrorCode::Options, "There is no such sealing.");
            let sealer = places.get(at as usize).and_then(Place::sealer);
            self.found = Some((number, sealer.ok_or_else(unknown)?));
        }
        Ok(self.found.as_ref().map(|(_, sealer)| sealer))
    }
}

/// Opens replies.
pub struct Opener<'a> {
    finder: Finder<'a>,
    gets: MutexGuard<'a, Vec<Get>>,
}

impl Opener<'_> {
    /// What is answered to the request `id`, which ends by that.
    pub fn open(&mut self, id: u32, outcome: Result<Reply, Error>) -> Result<Reply, Error> {
        let Some(get) = self.gets.get_mut(id as usize) else {
            return outcome;
        };
        match (std::mem::take(&mut get.sealer), outcome) {
            (0, outcome) => outcome,
            (number, Ok(Reply::Text(stored))) => match self.finder.of(number)? {
                Some(sealer) => sealer.open(&get.key, stored).map(Reply::Text),
                None => Ok(Reply::Text(stored)),
            },
            (_, outcome) => outcome,
        }
    }
}
