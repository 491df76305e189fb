//! What the ITS may still use after a timeout.
//!
//! Events are discarded and devices unmapped before their LPIs and tables are used for something else. If the ITS does
//! not answer in time, it may still execute those commands later, or what was posted before them. Until it did, nothing
//! of it is given back: the commands that found no room are posted before any other, and what they protect is released
//! when they were consumed. If that never happens it is never reused.

use super::command_queue::{Failed, Span};
use super::error::{ItsError, QueueError};
use super::{Its, State};
use crate::lpi::LpiRange;
use crate::platform::{Platform, Table};
use alloc::collections::VecDeque;
use core::num::NonZeroU16;
use gic_arch::its::{Command, Opcode};
use msi_types::DeviceId;

/// Resources that wait for commands.
#[derive(Debug)]
pub(crate) struct Limbo {
    posted: Span,
    rest: VecDeque<Command>,
    holds: Holds,
}

/// What is given back once the ITS cannot use it any more.
#[derive(Debug)]
pub(crate) enum Holds {
    /// Events of a device, and their LPIs.
    Events { device: DeviceId, first: u16, count: NonZeroU16, lpis: LpiRange },
    /// An interrupt translation table.
    Itt(Table),
}

impl<P: Platform> Its<P> {
    /// Executes commands that end the use of something, and gives it back afterwards.
    pub(super) fn retire(
        &self,
        state: &mut State,
        commands: &mut dyn Iterator<Item = Command>,
        holds: Holds,
    ) {
        match self.queue.run(&self.frame, commands) {
            Ok(()) => self.give_back(state, holds),
            Err(Failed { error, span }) => {
                self.note(error.at(self.frame.base));
                let rest: VecDeque<_> = commands.collect();
                match error {
                    QueueError::Stalled(refused) => self.give_back_unless(refused, state, holds),
                    _ if span.is_empty() && rest.is_empty() => self.give_back(state, holds),
                    QueueError::Timeout(_) | QueueError::Stopped => {
                        state.limbo.push_back(Limbo { posted: span, rest, holds });
                    }
                }
            }
        }
    }

    /// Completes what did not complete in time. Before anything new is posted for a device.
    ///
    /// # Errors
    /// The ITS still does not go on.
    pub(super) fn settle(&self, state: &mut State) -> Result<(), ItsError> {
        while let Some(mut limbo) = state.limbo.pop_front() {
            match self.finish(&mut limbo) {
                Ok(()) => self.give_back(state, limbo.holds),
                Err(QueueError::Stalled(refused)) => self.give_back_unless(refused, state, limbo.holds),
                Err(error @ (QueueError::Timeout(_) | QueueError::Stopped)) => {
                    state.limbo.push_front(limbo);
                    return Err(error.at(self.frame.base));
                }
            }
        }
        Ok(())
    }

    fn finish(&self, limbo: &mut Limbo) -> Result<(), QueueError> {
        let mut rest = core::iter::from_fn(|| limbo.rest.pop_front());
        let posted = self.queue.run(&self.frame, &mut rest);
        if let Err(Failed { span, .. }) = &posted {
            limbo.posted.extend(span);
        }
        posted.map_err(|failed| failed.error)?;
        self.queue.wait(&self.frame, &limbo.posted)
    }

    /// An event whose discarding was refused was not mapped. But a table whose unmapping was refused stays the
    /// device's: better lost than written to by the ITS when it is somebody else's.
    fn give_back_unless(&self, refused: Option<Command>, state: &mut State, holds: Holds) {
        let still_mapped = refused.is_some_and(|command| command.opcode() == Opcode::Mapd);
        if !still_mapped {
            self.give_back(state, holds);
        }
    }

    fn give_back(&self, state: &mut State, holds: Holds) {
        match holds {
            Holds::Itt(table) => self.platform().release_table(table),
            Holds::Events { device, first, count, lpis } => {
                let freed = self.lpis.free(lpis);
                debug_assert!(freed.is_ok(), "the LPIs were allocated with the events: {freed:?}");
                if let Some(known) = state.devices.get_mut(&device) {
                    known.give_events_back(first, count);
                }
                self.drop_unused(state, device);
            }
        }
    }
}
