//! The cell of an interrupt: one atomic word that decides who may touch its handler.
//!
//! ```text
//!            install                  enter          leave
//! vacant ──▶ changing ──▶ installed ─────────▶ running ─────▶ installed (pinned to resend)
//!    ▲                        │ close             │ close
//!    │         take           ▼                   ▼         leave, unpin
//!    └─ changing ◀─────── closing (idle) ◀──── closing (running or pinned)
//! ```
//!
//! A vacant cell that is *awaited* keeps the resend mark for the value to come: its owner's
//! messages may arrive before its handler is installed.
//!
//! The rules, all kept by compare-and-swap on the one word:
//! - *running* is set by one CPU at a time, never while disabled or closing: a handler never runs
//!   beside itself;
//! - an arrival that finds the cell busy or disabled leaves the *resend* mark, in one step with
//!   seeing why. One party takes the mark, in one step with leaving or enabling. Marking is a
//!   read-modify-write even if the mark is set already: it carries what the device wrote before to
//!   the next run;
//! - the value is read only while *running* or a *pin* is held. It is written only in *changing*,
//!   which is entered from vacant, or from closing without runner and pins.
//!
//! The checks in `interleavings/handler_cell.rs` explore these transitions.
// UNSAFETY: the value lives in an `UnsafeCell`. A lock around it would cost dispatch a second pair
// of atomic operations for an exclusion that the state word provides already.
#![expect(unsafe_code, reason = "the state word, not a lock, guards the value; each use says why")]

use crate::sync::{AtomicU32, SeqCst};
use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Deref;

/// A value is there, and not about to go.
const INSTALLED: u32 = 1 << 0;
/// A CPU runs the handler.
const RUNNING: u32 = 1 << 1;
/// An interrupt arrived while the handler could not run.
const RESEND: u32 = 1 << 2;
/// Arrivals do not run.
const DISABLED: u32 = 1 << 3;
/// The value is to be taken out as soon as nobody uses it.
const CLOSING: u32 = 1 << 4;
/// One party has the value to itself.
const CHANGING: u32 = 1 << 5;
/// Arrivals that cannot run are marked (edges and messages; a level tells again by itself).
const EDGE: u32 = 1 << 6;
/// Something was installed here before.
const USED: u32 = 1 << 7;
/// Without value so far, and arrivals are marked for the one that comes.
const AWAITED: u32 = 1 << 8;
/// One user of the value beside the runner. The count has the upper 16 bits: at most one pin per
/// CPU.
const PIN: u32 = 1 << 16;
const PINS: u32 = 0xffff << 16;

/// Treatment of an arrival that cannot run now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WhenBusy {
    /// Mark it, to be sent again: edges and messages.
    Mark,
    /// Nothing: a level is still asserted, and tells again.
    Ignore,
}

/// Result of an arrival.
pub(crate) enum Arrival<'a, T> {
    /// The handler is the caller's until the guard is [left](Running::leave) or dropped.
    Entered(Running<'a, T>),
    /// Another CPU runs it.
    Busy,
    /// The handler is disabled.
    Disabled,
    /// There is none; there was one before, or not.
    Absent(History),
}

/// Past of a cell without value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum History {
    Used,
    Unused,
}

/// A value could not be installed. Carries it back.
pub(crate) enum InstallError<T> {
    /// One is installed.
    Occupied(T),
    /// The last one is on its way out: try again later.
    Closing(T),
}

/// The cell of one handler, guarded by a state word.
pub(crate) struct HandlerCell<T> {
    word: AtomicU32,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: shared references to the value are handed to several threads at once (runner and pins),
// hence `Sync`. Different threads put the value in and take it out, hence `Send`. All access
// follows the state word.
unsafe impl<T: Send + Sync> Sync for HandlerCell<T> {}

impl<T> HandlerCell<T> {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0), value: UnsafeCell::new(None) }
    }

    /// Installs a value, disabled.
    ///
    /// Context: any.
    pub(crate) fn install(&self, value: T, when_busy: WhenBusy) -> Result<(), InstallError<T>> {
        let mut seen = self.word.load(SeqCst);
        loop {
            if seen & (CLOSING | CHANGING) != 0 {
                return Err(InstallError::Closing(value));
            }
            if seen & INSTALLED != 0 {
                return Err(InstallError::Occupied(value));
            }
            match self.swap_if(seen, CHANGING | USED | seen & (AWAITED | RESEND)) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // SAFETY: this thread set CHANGING from vacant, so nobody else reads or writes the value
        // until it clears.
        unsafe { *self.value.get() = Some(value) };
        let mode = if when_busy == WhenBusy::Mark { EDGE } else { 0 };
        let mut seen = self.word.load(SeqCst);
        // A mark may be left until the last moment.
        while let Err(now) = self.swap_if(seen, INSTALLED | DISABLED | USED | mode | seen & RESEND)
        {
            seen = now;
        }
        Ok(())
    }

    /// Makes the cell mark arrivals for a value that will be installed later. Does nothing if a
    /// value is installed or being installed.
    ///
    /// Context: any.
    pub(crate) fn await_value(&self) {
        self.change_vacant(|seen| seen | AWAITED);
    }

    /// Undoes [`await_value`](Self::await_value): no value will be installed.
    ///
    /// Context: any.
    pub(crate) fn forget(&self) {
        self.change_vacant(|seen| seen & !(AWAITED | RESEND));
    }

    fn change_vacant(&self, change: impl Fn(u32) -> u32) {
        let mut seen = self.word.load(SeqCst);
        while seen & (INSTALLED | CLOSING | CHANGING) == 0 {
            match self.swap_if(seen, change(seen)) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Enters the cell for an arrival. Lock-free: a retry occurs only if another party changed the
    /// word.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn enter(&self) -> Arrival<'_, T> {
        let mut seen = self.word.load(SeqCst);
        loop {
            if seen & (INSTALLED | RUNNING | DISABLED | CLOSING | CHANGING) == INSTALLED {
                match self.swap_if(seen, seen | RUNNING) {
                    Ok(_) => {
                        return Arrival::Entered(Running { cell: self, word: seen | RUNNING });
                    }
                    Err(now) => seen = now,
                }
                continue;
            }
            let awaited = seen & AWAITED != 0;
            if !awaited && (seen & INSTALLED == 0 || seen & CLOSING != 0) {
                let history = if seen & USED == 0 { History::Unused } else { History::Used };
                return Arrival::Absent(history);
            }
            let found =
                if awaited || seen & DISABLED != 0 { Arrival::Disabled } else { Arrival::Busy };
            if seen & EDGE == 0 && !awaited {
                return found;
            }
            match self.swap_if(seen, seen | RESEND) {
                Ok(_) => return found,
                Err(now) => seen = now,
            }
        }
    }

    /// Disables the cell: arrivals are marked instead of run. A running handler continues.
    ///
    /// Context: any.
    pub(crate) fn disable(&self) {
        let mut seen = self.word.load(SeqCst);
        while seen & INSTALLED != 0 {
            match self.swap_if(seen, seen | DISABLED) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Enables the cell. Returns true if an arrival was marked, which the caller must send again.
    ///
    /// Context: any.
    pub(crate) fn enable(&self) -> bool {
        let mut seen = self.word.load(SeqCst);
        while seen & INSTALLED != 0 {
            // The mark of an arrival that only found the handler running stays: its runner sends
            // it.
            let resend = seen & (RESEND | RUNNING | CLOSING) == RESEND;
            let taken = if resend { RESEND } else { 0 };
            match self.swap_if(seen, seen & !(DISABLED | taken)) {
                Ok(_) => return resend,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Closes the cell: arrivals find no value, which [`take`](Self::take) removes. Returns false
    /// if the cell has no value to close.
    ///
    /// Context: any.
    pub(crate) fn close(&self) -> bool {
        let mut seen = self.word.load(SeqCst);
        while seen & (INSTALLED | CLOSING) == INSTALLED {
            match self.swap_if(seen, seen | CLOSING) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Takes the value of a closed cell. Returns `None` if the value is still in use, or if the
    /// cell has none.
    ///
    /// Context: any.
    pub(crate) fn take(&self) -> Option<T> {
        let mut seen = self.word.load(SeqCst);
        loop {
            if seen & CLOSING == 0 || seen & (RUNNING | PINS) != 0 {
                return None;
            }
            match self.swap_if(seen, CHANGING | USED) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // SAFETY: this thread replaced CLOSING, without runner and pins, by CHANGING: nobody else
        // has a reference, and none is handed out before the next install.
        let value = unsafe { (&mut *self.value.get()).take() };
        self.word.store(USED, SeqCst);
        value
    }

    /// Returns true if no value is installed, being installed or being removed.
    ///
    /// Context: any.
    pub(crate) fn is_vacant(&self) -> bool {
        self.word.load(SeqCst) & (INSTALLED | CLOSING | CHANGING) == 0
    }

    /// Returns true if a handler runs, or an arrival is being sent again.
    ///
    /// Context: any.
    pub(crate) fn is_busy(&self) -> bool {
        self.word.load(SeqCst) & (RUNNING | PINS) != 0
    }

    /// Arrivals run.
    ///
    /// Context: any.
    pub(crate) fn is_enabled(&self) -> bool {
        self.word.load(SeqCst) & (INSTALLED | DISABLED | CLOSING) == INSTALLED
    }

    #[inline]
    fn swap_if(&self, seen: u32, new: u32) -> Result<u32, u32> {
        self.word.compare_exchange_weak(seen, new, SeqCst, SeqCst)
    }

    fn unpin(&self) {
        self.word.fetch_sub(PIN, SeqCst);
    }

    /// # Safety
    /// The caller holds RUNNING or a PIN, and goes on to hold it as long as the reference lives.
    #[inline]
    unsafe fn value_ref(&self) -> &T {
        // SAFETY: by this function's contract nobody writes the value meanwhile.
        let value = unsafe { &*self.value.get() };
        value.as_ref().expect("a cell is entered only while a value is installed")
    }

    /// Ends the run that began with the word `seen`. True if the caller now holds a pin, to send an
    /// arrival again.
    #[inline]
    fn end_run(&self, mut seen: u32) -> bool {
        loop {
            // A mark that was left while disabled waits for enable; one of a closing cell is void.
            let resend = seen & (RESEND | DISABLED | CLOSING) == RESEND;
            let next = if resend { (seen & !(RUNNING | RESEND)) + PIN } else { seen & !RUNNING };
            match self.swap_if(seen, next) {
                Ok(_) => return resend,
                Err(now) => seen = now,
            }
        }
    }
}

impl<T> fmt::Debug for HandlerCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerCell(..)")
    }
}

/// The right to run the handler.
pub(crate) struct Running<'a, T> {
    cell: &'a HandlerCell<T>,
    /// The word when the run began: mostly, it is the same at the end.
    word: u32,
}

impl<'a, T> Running<'a, T> {
    /// The handler returned. `Some` if the interrupt arrived meanwhile: the caller sends it again
    /// and drops the pin. Others may run the handler already.
    #[inline]
    pub(crate) fn leave(self) -> Option<Pinned<'a, T>> {
        let Self { cell, word } = self;
        core::mem::forget(self);
        // Lazily: a `Pinned` that is made has a pin to give back.
        cell.end_run(word).then(|| Pinned { cell })
    }
}

impl<T> Deref for Running<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard's RUNNING keeps `take` away, and install needs a vacant cell; so
        // nobody writes the value.
        unsafe { self.cell.value_ref() }
    }
}

impl<T> Drop for Running<'_, T> {
    /// Without [`leave`](Self::leave), what arrived meanwhile is not sent again.
    fn drop(&mut self) {
        if self.cell.end_run(self.word) {
            self.cell.unpin();
        }
    }
}

/// Keeps the value in place while an arrival is sent again; does not keep others from running it.
pub(crate) struct Pinned<'a, T> {
    cell: &'a HandlerCell<T>,
}

impl<T> Deref for Pinned<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this pin keeps `take` away, and install needs a vacant cell; so nobody writes the
        // value.
        unsafe { self.cell.value_ref() }
    }
}

impl<T> Drop for Pinned<'_, T> {
    fn drop(&mut self) {
        self.cell.unpin();
    }
}
