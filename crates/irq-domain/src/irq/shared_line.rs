//! Handlers on a shared line.
//!
//! A shared line has one handler cell, like any other interrupt, and the action in this cell runs
//! every member's handler. The list of members only ever grows, so dispatch can walk it without a
//! lock: tasks append members, and later handlers reuse vacant ones. Each member's handler is in
//! its own cell, so it cannot be removed while it runs.
//!
//! The control state, under its lock, determines which handler is the last one. A task that adds a
//! handler therefore always finds the line either installed or being removed.

use crate::irq::control::Control;
use crate::irq::handler::{Handler, IrqContext, IrqReturn};
use crate::irq::handler_cell::{HandlerCell, WhenBusy};
use crate::name::Name;
use crate::runtime::Host;
use alloc::collections::TryReserveError;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::lock::TaskLock;
use doorbell_fallible::{OnceBox, try_box};

/// A member's position in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemberIndex(usize);

impl MemberIndex {
    /// Index of the member that created the line.
    pub(crate) const FIRST: Self = Self(0);
}

/// One handler on a shared line, with its share of the control state.
struct Member {
    cell: HandlerCell<Handler>,
    name: TaskLock<Option<Name>>,
    /// Number of disables that this member's handle has not undone. Protected by the control lock.
    disables: AtomicU32,
    next: OnceBox<[Self; 1]>,
}

impl Member {
    fn new() -> Self {
        Self {
            cell: HandlerCell::new(),
            name: TaskLock::new(None),
            disables: AtomicU32::new(0),
            next: OnceBox::new(),
        }
    }

    /// Installs and enables a handler. Returns `false` if the cell is not vacant.
    fn open(&self, handler: Handler) -> bool {
        let installed = self.cell.install(handler, WhenBusy::Ignore).is_ok();
        if installed {
            self.cell.enable();
        }
        installed
    }
}

/// A shared line's members.
pub(crate) struct SharedLine {
    first: Member,
}

/// State of a line after a member was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Remaining {
    /// The line has members and stays installed.
    Some,
    /// The line has no members. The caller must close it.
    None,
}

impl SharedLine {
    /// Creates a line with this handler as its first member.
    pub(crate) fn new(handler: Handler) -> Self {
        let line = Self { first: Member::new() };
        line.first.open(handler);
        line
    }

    /// Runs every member's handler. Returns [`IrqReturn::Handled`] if at least one of them did.
    ///
    /// Context: hard IRQ.
    pub(crate) fn run(&self, context: &IrqContext<'_>) -> IrqReturn {
        let mut verdict = IrqReturn::None;
        for member in self.members() {
            if let Ok(handler) = member.cell.enter() {
                if handler.function()(context) == IrqReturn::Handled {
                    verdict = IrqReturn::Handled;
                }
                // The resend mark is never set for a level-triggered interrupt, so nothing needs to
                // be resent.
                drop(handler);
            }
        }
        verdict
    }

    /// Returns a vacant member, appending one if necessary. The caller must hold the request lock
    /// until it has [joined](Self::join).
    ///
    /// Context: task; may sleep.
    pub(crate) fn vacant(&self) -> Result<MemberIndex, TryReserveError> {
        let mut last = &self.first;
        for (index, member) in self.members().enumerate() {
            if member.cell.is_vacant() {
                return Ok(MemberIndex(index));
            }
            last = member;
        }
        last.next.get_or_try_init(|| try_box(Member::new()))?;
        Ok(MemberIndex(self.members().count() - 1))
    }

    /// Installs a handler in a vacant member. Returns `false` if the line is being removed. The
    /// caller must hold the control lock.
    ///
    /// Context: any.
    pub(crate) fn join(&self, control: &mut Control, index: MemberIndex, handler: Handler) -> bool {
        let joined =
            control.is_installed() && self.member(index).is_some_and(|member| member.open(handler));
        if joined {
            control.add_member();
        }
        joined
    }

    /// Closes a member's cell. The handler is not entered again, and [`take`](Self::take) can
    /// remove it. The caller must hold the control lock.
    ///
    /// Context: any.
    pub(crate) fn leave(&self, control: &mut Control, index: MemberIndex) -> Remaining {
        if let Some(member) = self.member(index) {
            member.cell.close();
        }
        if control.remove_member() { Remaining::None } else { Remaining::Some }
    }

    /// Takes a removed member's handler. Returns `None` while it is still running.
    ///
    /// Context: task; may sleep.
    pub(crate) fn take(&self, host: &dyn Host, index: MemberIndex) -> Option<Handler> {
        let member = self.member(index)?;
        let mut name = member.name.lock(host);
        let handler = member.cell.take()?;
        *name = None;
        Some(handler)
    }

    /// Counts a disable by a member's handle. The caller must hold the control lock.
    ///
    /// Context: any.
    pub(crate) fn count_disable(&self, index: MemberIndex) {
        if let Some(Member { disables, .. }) = self.member(index) {
            let count = disables.load(Ordering::SeqCst).saturating_add(1);
            disables.store(count, Ordering::SeqCst);
        }
    }

    /// Undoes a disable by a member's handle. Returns `false` if the handle has no disable to undo.
    /// The caller must hold the control lock.
    ///
    /// Context: any.
    pub(crate) fn uncount_disable(&self, index: MemberIndex) -> bool {
        let disables = self.member(index).map(|member| &member.disables);
        disables.is_some_and(|disables| {
            let fewer = disables.load(Ordering::SeqCst).checked_sub(1);
            fewer.inspect(|fewer| disables.store(*fewer, Ordering::SeqCst)).is_some()
        })
    }

    /// Undoes all disables by a member's handle, and returns their number. The caller must hold the
    /// control lock.
    ///
    /// Context: any.
    pub(crate) fn take_disables(&self, index: MemberIndex) -> u32 {
        self.member(index).map_or(0, |member| member.disables.swap(0, Ordering::SeqCst))
    }

    /// Sets the name of a member's handler.
    ///
    /// Context: task; may sleep.
    pub(crate) fn set_name(&self, host: &dyn Host, index: MemberIndex, name: Name) {
        if let Some(member) = self.member(index) {
            *member.name.lock(host) = Some(name);
        }
    }

    /// Writes the names of all handlers, separated by commas.
    ///
    /// Context: task; may sleep.
    pub(crate) fn write_names(&self, host: &dyn Host, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut separator = "";
        for member in self.members() {
            let name = member.name.lock(host).clone();
            if let Some(name) = name {
                write!(out, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        core::iter::successors(Some(&self.first), |member| {
            let [next] = member.next.get()?;
            Some(next)
        })
    }

    fn member(&self, index: MemberIndex) -> Option<&Member> {
        self.members().nth(index.0)
    }
}

impl fmt::Debug for SharedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLine").field("members", &self.members().count()).finish()
    }
}
