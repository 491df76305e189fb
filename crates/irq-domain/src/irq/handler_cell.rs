//! An interrupt's handler cell. A single atomic state word determines who may access the handler.
//!
//! ```text
//!            install                  enter          leave
//! vacant ──▶ changing ──▶ installed ─────────▶ running ─────▶ installed (pinned to resend)
//!    ▲                        │ close             │ close
//!    │         take           ▼                   ▼         leave, unpin
//!    └─ changing ◀─────── closing (idle) ◀──── closing (running or pinned)
//! ```
//!
//! A vacant cell can be *awaited*: messages may arrive before the handler, so the cell keeps a
//! resend mark for the value that will be installed.
//!
//! The rules (a compare-and-swap on the state word enforces each of them):
//! - *running* is set by one CPU at a time, and never while the cell is disabled or closing, so a
//!   handler cannot run concurrently with itself;
//! - an arrival that finds the cell busy or disabled sets the *resend* mark in the same atomic
//!   step. Exactly one party clears it, in the same atomic step in which it leaves or enables the
//!   cell. Even if the mark is already set, setting it is a read-modify-write: this makes the
//!   device's earlier writes visible to the next run;
//! - the value must only be read while *running* or a *pin* is held. The value must only be written
//!   in *changing*, which can be entered from vacant, or from closing once no runner or pin
//!   remains.
//!
//! The checks in `interleavings/handler_cell.rs` explore all these transitions.
// UNSAFETY: the value lives in an `UnsafeCell`. A lock around it would cost dispatch a second pair
// of atomic operations, for the same exclusion that the state word already provides.
#![expect(unsafe_code, reason = "a state word guards the value; each use has a safety comment")]

use crate::sync::{AtomicU32, SeqCst};
use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Deref;

/// A value is installed. The bit remains set while the cell is closing.
const INSTALLED: u32 = 1 << 0;
/// A CPU is running the handler.
const RUNNING: u32 = 1 << 1;
/// The interrupt arrived while the handler couldn't run.
const RESEND: u32 = 1 << 2;
/// The cell is disabled: arrivals do not run the handler.
const DISABLED: u32 = 1 << 3;
/// The value must be taken out once it is no longer in use.
const CLOSING: u32 = 1 << 4;
/// One party has exclusive access to the value.
const CHANGING: u32 = 1 << 5;
/// An arrival that cannot run the handler sets the resend mark. This flag is set for edges and
/// messages, but not for levels, which arrive again for as long as they are asserted.
const EDGE: u32 = 1 << 6;
/// A value was installed before.
const USED: u32 = 1 << 7;
/// The cell has no value yet, and marks arrivals to be resent once a value has been installed.
const AWAITED: u32 = 1 << 8;
/// A pin: one user of the value in addition to the runner. The upper 16 bits count the pins; each
/// CPU holds at most one.
const PIN: u32 = 1 << 16;
const PINS: u32 = 0xffff << 16;

/// The treatment of an arrival that cannot run the handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WhenBusy {
    /// The arrival is marked, so that it is sent again. Used for edges and messages.
    Mark,
    /// The arrival is ignored. Used for levels, which stay asserted and arrive again.
    Ignore,
}

/// The reason why an arrival did not enter its cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotEntered {
    /// The handler is already running.
    Busy,
    /// The handler is disabled.
    Disabled,
    /// The cell has no handler. The history says whether it ever had one.
    Absent(History),
}

/// The history of a cell that has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum History {
    Used,
    Unused,
}

/// The reason why a value could not be installed. Each variant returns the value to the caller.
pub(crate) enum InstallError<T> {
    /// A value is already installed.
    Occupied(T),
    /// The previous value is still being removed. The caller may try again later.
    Closing(T),
}

/// A cell for one handler, guarded by a state word.
pub(crate) struct HandlerCell<T> {
    word: AtomicU32,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: The runner and pins can hold shared references on several threads at once, which requires
// `Sync`. One thread may install the value and another take it, which requires `Send`. The state
// word guards all accesses.
unsafe impl<T: Send + Sync> Sync for HandlerCell<T> {}

impl<T> HandlerCell<T> {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0), value: UnsafeCell::new(None) }
    }

    /// Installs a value in the disabled state.
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
        // SAFETY: We changed the word from vacant to CHANGING.
        unsafe { self.publish(value, when_busy) };
        Ok(())
    }

    /// Stores a value in the disabled state, and clears CHANGING.
    ///
    /// # Safety
    /// The caller must have changed the word from vacant to CHANGING.
    unsafe fn publish(&self, value: T, when_busy: WhenBusy) {
        // SAFETY: Our own contract ensures that no other thread accesses the value until we clear
        // CHANGING.
        unsafe { *self.value.get() = Some(value) };
        let mode = if when_busy == WhenBusy::Mark { EDGE } else { 0 };
        let mut seen = self.word.load(SeqCst);
        // Until this exchange succeeds, an arrival can still set the resend mark.
        while let Err(now) = self.swap_if(seen, INSTALLED | DISABLED | USED | mode | seen & RESEND)
        {
            seen = now;
        }
    }

    /// Makes the cell mark arrivals for a value that will be installed later. A no-op if a value is
    /// installed or being installed.
    ///
    /// Context: any.
    pub(crate) fn await_value(&self) {
        self.change_vacant(|seen| seen | AWAITED);
    }

    /// Undoes [`await_value`](Self::await_value), because no value will be installed.
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

    /// Enters the cell on behalf of an arrival. Lock-free: it retries only if another party changed
    /// the word. The caller may run the handler until it [leaves](Running::leave) or drops the
    /// guard.
    ///
    /// # Errors
    /// Returns the reason why the handler must not run.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn enter(&self) -> Result<Running<'_, T>, NotEntered> {
        let mut seen = self.word.load(SeqCst);
        loop {
            if seen & (INSTALLED | RUNNING | DISABLED | CLOSING | CHANGING) == INSTALLED {
                match self.swap_if(seen, seen | RUNNING) {
                    Ok(_) => return Ok(Running { cell: self, word: seen | RUNNING }),
                    Err(now) => seen = now,
                }
                continue;
            }
            let awaited = seen & AWAITED != 0;
            if !awaited && (seen & INSTALLED == 0 || seen & CLOSING != 0) {
                let history = if seen & USED == 0 { History::Unused } else { History::Used };
                return Err(NotEntered::Absent(history));
            }
            let is_disabled = awaited || seen & DISABLED != 0;
            let found = if is_disabled { NotEntered::Disabled } else { NotEntered::Busy };
            if seen & EDGE == 0 && !awaited {
                return Err(found);
            }
            match self.swap_if(seen, seen | RESEND) {
                Ok(_) => return Err(found),
                Err(now) => seen = now,
            }
        }
    }

    /// Disables the cell: arrivals do not run the handler, and edges are marked to be sent again. A
    /// running handler continues.
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

    /// Enables the cell. Returns `true` if an arrival was marked. The caller must then send it
    /// again.
    ///
    /// Context: any.
    pub(crate) fn enable(&self) -> bool {
        let mut seen = self.word.load(SeqCst);
        while seen & INSTALLED != 0 {
            // If the handler is running, leave the mark to the runner: it sends the arrival again.
            let resend = seen & (RESEND | RUNNING | CLOSING) == RESEND;
            let taken = if resend { RESEND } else { 0 };
            match self.swap_if(seen, seen & !(DISABLED | taken)) {
                Ok(_) => return resend,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Closes the cell. Arrivals no longer find the value, and [`take`](Self::take) can remove it.
    /// Returns `false` if the cell has no value to close.
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

    /// Takes the value out of a closed cell. Returns `None` if the value is still in use, or if the
    /// cell has no value.
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
        // SAFETY: We replaced CLOSING, without a runner or pins, with CHANGING. No other reference
        // exists, and none can be created before the next install.
        let value = unsafe { (&mut *self.value.get()).take() };
        self.word.store(USED, SeqCst);
        value
    }

    /// Returns `true` if the cell has no value, and none is being installed or removed.
    ///
    /// Context: any.
    pub(crate) fn is_vacant(&self) -> bool {
        self.word.load(SeqCst) & (INSTALLED | CLOSING | CHANGING) == 0
    }

    /// Returns `true` if a handler is running, or an arrival is being sent again.
    ///
    /// Context: any.
    pub(crate) fn is_busy(&self) -> bool {
        self.word.load(SeqCst) & (RUNNING | PINS) != 0
    }

    /// Returns `true` if arrivals run the handler.
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
    /// The caller must hold RUNNING or a PIN for as long as the reference is alive.
    #[inline]
    unsafe fn value_ref(&self) -> &T {
        // SAFETY: Our own contract ensures that the value isn't written while the reference is
        // alive.
        let value = unsafe { &*self.value.get() };
        value.as_ref().expect("a cell is entered only while a value is installed")
    }

    /// Ends the run that began with the word `seen`. Returns `true` if the caller now holds a pin
    /// and must resend an arrival.
    #[inline]
    fn end_run(&self, mut seen: u32) -> bool {
        while seen & RESEND == 0 {
            match self.swap_if(seen, seen & !RUNNING) {
                Ok(_) => return false,
                Err(now) => seen = now,
            }
        }
        self.end_marked_run(seen)
    }

    /// Ends a run like [`end_run`](Self::end_run), if the interrupt arrived during it.
    #[cold]
    #[inline(never)]
    fn end_marked_run(&self, mut seen: u32) -> bool {
        loop {
            // A disabled cell keeps its resend mark until it is enabled. A closing cell discards
            // the mark.
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

/// The exclusive right to run the handler.
pub(crate) struct Running<'a, T> {
    cell: &'a HandlerCell<T>,
    /// The state word when the run began, which has usually not changed when the run ends.
    word: u32,
}

impl<'a, T> Running<'a, T> {
    /// Ends the run. Returns a pin if the interrupt arrived during the run. The caller must then
    /// send the interrupt again and drop the pin. Another CPU may already be running the handler.
    #[inline]
    pub(crate) fn leave(self) -> Option<Pinned<'a, T>> {
        let Self { cell, word } = self;
        core::mem::forget(self);
        // Create the `Pinned` lazily, because dropping it releases a pin.
        cell.end_run(word).then(|| Pinned { cell })
    }
}

impl<T> Deref for Running<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: We hold RUNNING, so `take` can't remove the value, and `install` requires a
        // vacant cell. The value is not written.
        unsafe { self.cell.value_ref() }
    }
}

impl<T> Drop for Running<'_, T> {
    /// Ends the run without resending an interrupt that arrived during the run. Callers that resend
    /// it must use [`leave`](Self::leave).
    fn drop(&mut self) {
        if self.cell.end_run(self.word) {
            self.cell.unpin();
        }
    }
}

/// A pin, which keeps the value in place while an arrival is sent again. Other CPUs may run the
/// handler in the meantime.
pub(crate) struct Pinned<'a, T> {
    cell: &'a HandlerCell<T>,
}

impl<T> Deref for Pinned<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: We hold a pin, so `take` can't remove the value, and `install` requires a vacant
        // cell. The value is not written.
        unsafe { self.cell.value_ref() }
    }
}

impl<T> Drop for Pinned<'_, T> {
    fn drop(&mut self) {
        self.cell.unpin();
    }
}
