//! Waits for replies in Node's event loop: libuv's poll handles, <https://docs.libuv.org/en/v1.x/poll.html>. In
//! other runtimes a reply wakes the I/O thread, which wakes the event loop; with few requests at once, these
//! two wake-ups take most of the time of a request.

#![expect(
    unsafe_code,
    reason = "libuv's functions and Node-API's callback scopes have no safe form"
)]

use std::{
    ffi::{c_int, c_void},
    net::Shutdown,
    os::fd::AsRawFd,
    ptr::null_mut,
    rc::Rc,
    sync::{Arc, OnceLock, Weak},
};

use libloading::os::unix::Library;
use napi::{bindgen_prelude::*, check_status, sys};

use super::delivery::Delivery;
use crate::driver::{Reading, Store, Watch};

/// `UV_POLL` of `uv_handle_type`, and `UV_READABLE`: both are part of libuv's ABI.
const POLL: c_int = 8;
const READABLE: c_int = 1;

type Handle = *mut c_void;
type OnPoll = unsafe extern "C" fn(Handle, c_int, c_int);
type OnClose = unsafe extern "C" fn(Handle);

/// The functions of libuv that the host program exports.
struct Uv {
    handle_size: unsafe extern "C" fn(c_int) -> usize,
    poll_init: unsafe extern "C" fn(*mut sys::uv_loop_s, Handle, c_int) -> c_int,
    poll_start: unsafe extern "C" fn(Handle, c_int, OnPoll) -> c_int,
    unref: unsafe extern "C" fn(Handle),
    close: unsafe extern "C" fn(Handle, OnClose),
    is_closing: unsafe extern "C" fn(Handle) -> c_int,
    set_data: unsafe extern "C" fn(Handle, *mut c_void),
    get_data: unsafe extern "C" fn(Handle) -> *mut c_void,
}

/// None if the program does not export libuv: then the I/O thread waits for replies.
fn uv() -> Option<&'static Uv> {
    static UV: OnceLock<Option<Uv>> = OnceLock::new();
    UV.get_or_init(|| {
        let program = Library::this();
        // SAFETY: the names are libuv's, whose functions have these types since 1.19; they live as
        // long as the program.
        unsafe {
            Some(Uv {
                handle_size: *program.get(b"uv_handle_size\0").ok()?,
                poll_init: *program.get(b"uv_poll_init\0").ok()?,
                poll_start: *program.get(b"uv_poll_start\0").ok()?,
                unref: *program.get(b"uv_unref\0").ok()?,
                close: *program.get(b"uv_close\0").ok()?,
                is_closing: *program.get(b"uv_is_closing\0").ok()?,
                set_data: *program.get(b"uv_handle_set_data\0").ok()?,
                get_data: *program.get(b"uv_handle_get_data\0").ok()?,
            })
        }
    })
    .as_ref()
}

/// Whether event loops can wait for replies.
pub fn is_possible() -> bool {
    uv().is_some()
}

/// Calls a store's `wake` from outside of JavaScript.
pub struct Caller {
    env: sys::napi_env,
    wake: sys::napi_ref,
    context: sys::napi_async_context,
}

impl Caller {
    pub fn new(env: &Env, wake: &Function<'_, (), ()>) -> Result<Rc<Self>> {
        let env = env.raw();
        let mut caller = Self {
            env,
            wake: null_mut(),
            context: null_mut(),
        };
        // SAFETY: the environment is the live one that this is called in, and so is the function.
        unsafe {
            let name = String::to_napi_value(env, "RedisStore".into())?;
            check_status!(
                sys::napi_async_init(env, null_mut(), name, &mut caller.context),
                "No async context"
            )?;
            check_status!(
                sys::napi_create_reference(env, wake.raw(), 1, &mut caller.wake),
                "No reference"
            )?;
        }
        Ok(Rc::new(caller))
    }

    fn call(&self) {
        // SAFETY: called by the event loop, on the environment's thread, outside of JavaScript; what
        // is created lives in the scope that is closed before the return.
        unsafe {
            let env = self.env;
            let mut scope = null_mut();
            if sys::napi_open_handle_scope(env, &mut scope) != sys::Status::napi_ok {
                return;
            }
            let (mut wake, mut this, mut result) = (null_mut(), null_mut(), null_mut());
            sys::napi_get_reference_value(env, self.wake, &mut wake);
            sys::napi_get_global(env, &mut this);
            let argv = std::ptr::null();
            let status =
                sys::napi_make_callback(env, self.context, this, wake, 0, argv, &mut result);
            if status == sys::Status::napi_pending_exception {
                let mut exception = null_mut();
                sys::napi_get_and_clear_last_exception(env, &mut exception);
                sys::napi_fatal_exception(env, exception);
            }
            sys::napi_close_handle_scope(env, scope);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: both were made in this environment, which the last handle's hook keeps alive.
        unsafe {
            sys::napi_delete_reference(self.env, self.wake);
            sys::napi_async_destroy(self.env, self.context);
        }
    }
}

/// One watched connection. Lives from [`open`] until its handle is closed.
struct Watcher {
    /// The handle itself, which libuv keeps the address of.
    handle: Box<[u64]>,
    uv: &'static Uv,
    caller: Rc<Caller>,
    delivery: Arc<Delivery>,
    store: Weak<Store>,
    watch: Watch,
    hook: sys::napi_async_cleanup_hook_handle,
}

/// Calls `wake` by `caller` whenever replies have arrived on `watch`, until the connection, the store or the
/// environment ends. A connection that cannot be polled is closed.
pub fn start(caller: &Rc<Caller>, delivery: &Arc<Delivery>, store: &Arc<Store>, watch: &Watch) {
    if open(caller, delivery, store, watch.clone()).is_err() {
        let _ = watch.socket.shutdown(Shutdown::Both);
        let _ = store.read(watch);
    }
}

fn open(
    caller: &Rc<Caller>,
    delivery: &Arc<Delivery>,
    store: &Arc<Store>,
    watch: Watch,
) -> Result<()> {
    let uv = uv().ok_or_else(|| Error::from_reason("No libuv"))?;
    let env = caller.env;
    let descriptor = watch.socket.as_raw_fd();
    // SAFETY: the size is libuv's own, the memory is aligned for any of its fields and stays where it
    // is until the close callback; an environment of Node has a loop. From `poll_init` on the handle
    // is freed by `closed` alone.
    unsafe {
        let mut event_loop = null_mut();
        check_status!(
            sys::napi_get_uv_event_loop(env, &mut event_loop),
            "No event loop"
        )?;
        let size = (uv.handle_size)(POLL).div_ceil(size_of::<u64>());
        let watcher = Box::into_raw(Box::new(Watcher {
            handle: vec![0; size].into_boxed_slice(),
            uv,
            caller: Rc::clone(caller),
            delivery: Arc::clone(delivery),
            store: Arc::downgrade(store),
            watch,
            hook: null_mut(),
        }));
        let handle: Handle = (*watcher).handle.as_mut_ptr().cast();
        if (uv.poll_init)(event_loop, handle, descriptor) != 0 {
            drop(Box::from_raw(watcher));
            return Err(Error::from_reason("No poll handle"));
        }
        (uv.set_data)(handle, watcher.cast());
        // An idle store does not keep the process alive.
        (uv.unref)(handle);
        let hook = &mut (*watcher).hook;
        sys::napi_add_async_cleanup_hook(env, Some(torn_down), watcher.cast(), hook);
        (uv.poll_start)(handle, READABLE, on_readable);
    }
    Ok(())
}

unsafe extern "C" fn on_readable(handle: Handle, status: c_int, _events: c_int) {
    let Some(uv) = uv() else { return };
    // SAFETY: the data of the handle is its watcher, which only `closed` frees. Nothing borrows it
    // while JavaScript runs, which may start other watchers but ends none.
    unsafe {
        let watcher: *mut Watcher = (uv.get_data)(handle).cast();
        let (reading, caller) = {
            let watcher = &*watcher;
            let announced = watcher.delivery.announce();
            let reading = match watcher.store.upgrade() {
                Some(store) => store.read(&watcher.watch),
                None => Reading::Ended,
            };
            let caller =
                (announced && watcher.delivery.is_waited_for()).then(|| Rc::clone(&watcher.caller));
            (reading, caller)
        };
        if reading == Reading::Ended {
            (uv.close)(handle, closed);
        } else if status < 0 {
            // libuv stops polling after an error, which must still be read.
            (uv.poll_start)(handle, READABLE, on_readable);
        }
        if let Some(caller) = caller {
            caller.call();
        }
    }
}

/// The environment ends.
unsafe extern "C" fn torn_down(_hook: sys::napi_async_cleanup_hook_handle, data: *mut c_void) {
    let watcher: *mut Watcher = data.cast();
    // SAFETY: `closed`, which frees the watcher, removes the hook before.
    unsafe {
        let uv = (*watcher).uv;
        let handle = (*watcher).handle.as_mut_ptr().cast();
        if (uv.is_closing)(handle) == 0 {
            (uv.close)(handle, closed);
        }
    }
}

unsafe extern "C" fn closed(handle: Handle) {
    let Some(uv) = uv() else { return };
    // SAFETY: libuv is done with the handle, and calls this once.
    unsafe {
        let watcher: Box<Watcher> = Box::from_raw((uv.get_data)(handle).cast());
        let hook = watcher.hook;
        drop(watcher);
        sys::napi_remove_async_cleanup_hook(hook);
    }
}
