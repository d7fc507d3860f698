//! Doing several things at once in one thread: futures, driven by one poll(2).
//!
//! The build runs helpers and containers as child processes and waits for their pipes. It must stay in one thread, for a
//! process is cloned in it; so stages are futures, and this is the little that is needed to drive them. There are no
//! wakers: after every wait everything that waits is asked again, which for the few dozen things that a build waits for
//! is less work than keeping track.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A future of this thread.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What the current round waits for.
#[derive(Default)]
struct Waits {
    files: Vec<Rc<OwnedFd>>,
    until: Option<Instant>,
    /// Something changed that another future may wait for.
    again: bool,
}

thread_local! {
    static WAITS: RefCell<Waits> = RefCell::default();
}

/// Drives a future to its end. `tick` is called about that often while there is nothing to do.
///
/// Can be used inside of a future that is being driven: the outer ones then wait until the inner one is done.
pub fn block_on_with_tick<T>(future: impl Future<Output = T>, every: Duration, tick: &mut dyn FnMut()) -> T {
    let outer = WAITS.take();
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut next = Instant::now() + every;
    let result = loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            break result;
        }
        let waits = WAITS.take();
        if !waits.again {
            wait(&waits, next);
        }
        if Instant::now() >= next {
            tick();
            next = Instant::now() + every;
        }
    };
    WAITS.replace(outer);
    result
}

/// Drives a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    const SELDOM: Duration = Duration::from_secs(3600);
    block_on_with_tick(future, SELDOM, &mut || ())
}

fn wait(waits: &Waits, tick: Instant) {
    let until = waits.until.map_or(tick, |u| u.min(tick));
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up: a timer that is not yet over would only be asked again.
    let left = left + Duration::from_micros(50);
    let timeout =
        Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) };
    let mut files: Vec<PollFd<'_>> = waits.files.iter().map(|f| PollFd::new(&**f, PollFlags::IN)).collect();
    // Whatever this returns, everybody looks for himself.
    let _ = poll(&mut files, Some(&timeout));
}

/// Everything that waits is asked again before anything is waited for. For changes that other futures look at.
pub fn again() {
    WAITS.with_borrow_mut(|w| w.again = true);
}

/// Waits until one of some files can be read without waiting, or is closed on the other side. Without files it never ends.
pub async fn readable(files: &[Rc<OwnedFd>]) {
    poll_fn(|_| {
        let mut fds: Vec<PollFd<'_>> = files.iter().map(|f| PollFd::new(&**f, PollFlags::IN)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) => {}
            Ok(_) => return Poll::Ready(()),
            Err(_) => again(),
        }
        WAITS.with_borrow_mut(|w| w.files.extend(files.iter().cloned()));
        Poll::Pending
    })
    .await;
}

/// Waits for some time.
pub async fn sleep(time: Duration) {
    let end = Instant::now() + time;
    poll_fn(|_| {
        if Instant::now() >= end {
            return Poll::Ready(());
        }
        WAITS.with_borrow_mut(|w| w.until = Some(w.until.map_or(end, |u| u.min(end))));
        Poll::Pending
    })
    .await;
}

/// Waits until a condition holds that other futures of this thread bring about, who call [`again`] then.
pub async fn until(mut holds: impl FnMut() -> bool) {
    poll_fn(|_| if holds() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Drives all futures at once, to the end of all or to the first error. The others end where they are then.
pub async fn all<'f, E>(futures: Vec<Pending<'f, Result<(), E>>>) -> Result<(), E> {
    let mut open: Vec<Option<Pending<'f, Result<(), E>>>> = futures.into_iter().map(Some).collect();
    poll_fn(|context| {
        for slot in &mut open {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(context) {
                Poll::Ready(Ok(())) => {
                    *slot = None;
                    again();
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {}
            }
        }
        if open.iter().all(Option::is_none) { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::Write;

    fn pipe() -> (Rc<OwnedFd>, std::fs::File) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (Rc::new(read), std::fs::File::from(write))
    }

    #[test]
    fn files_and_timers_run_together() {
        let order = RefCell::new(Vec::new());
        let (read, write) = pipe();
        let write = Cell::new(Some(write));
        let reader = async {
            readable(&[read]).await;
            order.borrow_mut().push("read");
            Ok::<(), ()>(())
        };
        let sleeper = async {
            sleep(Duration::from_millis(5)).await;
            order.borrow_mut().push("slept");
            write.take().unwrap().write_all(b"x").unwrap();
            Ok(())
        };
        block_on(all(vec![Box::pin(reader), Box::pin(sleeper)])).unwrap();
        assert_eq!(*order.borrow(), ["slept", "read"]);
    }

    #[test]
    fn one_waits_for_another_in_any_order() {
        for swap in [false, true] {
            let done = Cell::new(false);
            let first: Pending<'_, Result<(), ()>> = Box::pin(async {
                sleep(Duration::from_millis(1)).await;
                done.set(true);
                again();
                Ok(())
            });
            let second: Pending<'_, Result<(), ()>> = Box::pin(async {
                until(|| done.get()).await;
                Ok(())
            });
            let list = if swap { vec![second, first] } else { vec![first, second] };
            block_on(all(list)).unwrap();
        }
    }

    #[test]
    fn an_error_ends_the_others() {
        struct Mark<'a>(&'a Cell<bool>);
        impl Drop for Mark<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let ended = Cell::new(false);
        let (read, _write) = pipe();
        let endless: Pending<'_, Result<(), &str>> = Box::pin(async {
            let _mark = Mark(&ended);
            readable(&[read]).await;
            Ok(())
        });
        let failing: Pending<'_, Result<(), &str>> = Box::pin(async { Err("no") });
        assert_eq!(block_on(all(vec![endless, failing])), Err("no"));
        assert!(ended.get());
    }

    #[test]
    fn nested_and_ticking() {
        let mut ticks = 0;
        let inner = async { block_on(async { sleep(Duration::from_millis(1)).await }) };
        let outer = async {
            inner.await;
            sleep(Duration::from_millis(12)).await;
        };
        block_on_with_tick(outer, Duration::from_millis(3), &mut || ticks += 1);
        assert!(ticks >= 2, "{ticks}");
    }

    #[test]
    fn a_closed_pipe_is_readable() {
        let (read, write) = pipe();
        drop(write);
        block_on(readable(&[read]));
    }
}
