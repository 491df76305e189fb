//! Unmappings that the ITS did not complete in time, and the resources that they keep.

use super::command_queue::CommandSpan;
use super::sequences::EventBlocks;
use crate::platform::Table;
use alloc::collections::VecDeque;
use gic_arch::its::Command;

/// Resources that wait for commands.
#[derive(Debug)]
pub(crate) struct DeferredUnmap {
    pub(super) posted: CommandSpan,
    pub(super) rest: VecDeque<Command>,
    pub(super) resources: Resources,
}

/// Resources that are freed once the ITS cannot use them any more.
#[derive(Debug)]
pub(crate) enum Resources {
    /// Events of a device that stays, and their LPIs.
    Events(EventBlocks),
    /// A device's table, and the LPIs of the events that it had to the end.
    Device {
        /// MAPD with V=0.
        unmap: Command,
        itt: Table,
        blocks: EventBlocks,
    },
}

impl Resources {
    pub(super) fn blocks(&self) -> &EventBlocks {
        match self {
            Self::Events(blocks) | Self::Device { blocks, .. } => blocks,
        }
    }

    pub(super) fn unmap(&self) -> Option<Command> {
        match self {
            Self::Events(_) => None,
            Self::Device { unmap, .. } => Some(*unmap),
        }
    }
}
