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
        let Err(Failed { error, span }) = self.queue.run(&self.frame, commands) else {
            return self.give_back(state, holds);
        };
        self.note(error.at(self.frame.base));
        match error {
            // The table stays the device's: better lost than written to by the ITS when it is somebody else's.
            QueueError::Stalled(Some(command)) if command.opcode() == Opcode::Mapd => {}
            QueueError::Stalled(_) => self.give_back(state, holds),
            QueueError::Timeout(_) | QueueError::Stopped => {
                let rest: VecDeque<_> = commands.collect();
                if span.is_empty() && rest.is_empty() {
                    return self.give_back(state, holds);
                }
                state.limbo.push_back(Limbo { posted: span, rest, holds });
            }
        }
    }

    /// Goes on with what did not complete in time. Before anything new is posted for a device.
    ///
    /// # Errors
    /// Some of it still finds no room in the queue.
    pub(super) fn settle(&self, state: &mut State) -> Result<(), ItsError> {
        for limbo in &mut state.limbo {
            self.post_rest(limbo).map_err(|error| error.at(self.frame.base))?;
        }
        while state.limbo.front().is_some_and(|limbo| self.queue.is_consumed(&self.frame, &limbo.posted)) {
            if let Some(limbo) = state.limbo.pop_front() {
                self.give_back(state, limbo.holds);
            }
        }
        Ok(())
    }

    fn post_rest(&self, limbo: &mut Limbo) -> Result<(), QueueError> {
        if limbo.rest.is_empty() {
            return Ok(());
        }
        let mut rest = core::iter::from_fn(|| limbo.rest.pop_front());
        let posted = self.queue.try_post(&self.frame, &mut rest)?;
        limbo.posted.extend(&posted.span);
        match limbo.rest.front() {
            None => Ok(()),
            Some(command) => Err(QueueError::Timeout(Some(*command))),
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
