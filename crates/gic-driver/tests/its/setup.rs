//! An ITS driver on a board, with CPUs on.

use super::board::{Block, Board, DISTRIBUTOR, Frame, ITS, ITS_STRIDE, REDISTRIBUTOR, REDISTRIBUTOR_STRIDE};
use super::interpreter::{Hardware, Traffic};
use gic_arch::{Affinity, Lpi, Priority};
use gic_driver::its::{EventRequest, ProbeError};
use gic_driver::lpi::LpiConfig;
use gic_driver::{Distributor, Its, ItsConfig, Lpis, RedistributorInfo, TableAccess};
use msi_types::{Attachment, Cpu, DeviceId, Initially, Shape, VectorBlock};
use std::num::NonZeroU16;
use std::sync::Arc;

pub(crate) struct Setup {
    pub(crate) board: Board,
    pub(crate) lpis: Arc<Lpis<Board>>,
    pub(crate) its: Arc<Its<Board>>,
}

pub(crate) fn lpis(board: &Board) -> Arc<Lpis<Board>> {
    let frame = Frame { board: board.clone(), block: Block::Distributor };
    let distributor = Distributor::new(board, frame, DISTRIBUTOR).unwrap();
    let access = TableAccess::Negotiate;
    let config = LpiConfig { id_bits: Some(14), priority: Priority::new(0xa0), access, address_bits: 52 };
    Arc::new(Lpis::new(Arc::new(board.clone()), &distributor, std::iter::empty(), config).unwrap())
}

pub(crate) fn redistributor(cpu: u32) -> RedistributorInfo {
    RedistributorInfo {
        cpu: Cpu::new(cpu),
        affinity: Affinity::from_packed(cpu),
        address: REDISTRIBUTOR + u64::from(cpu) * REDISTRIBUTOR_STRIDE,
        processor_number: u16::try_from(cpu).unwrap(),
    }
}

pub(crate) fn config(index: u64) -> ItsConfig {
    ItsConfig { queue_bytes: 0x1000, ..ItsConfig::new(ITS + index * ITS_STRIDE, 4) }
}

/// One ITS without CPUs.
pub(crate) fn probe(hardware: Hardware, config: &ItsConfig) -> (Board, Result<Its<Board>, ProbeError>) {
    let board = Board::new(vec![hardware], 4);
    let lpis = lpis(&board);
    let its = Its::new(Arc::new(board.clone()), lpis, config);
    (board, its)
}

impl Setup {
    /// Four CPUs on, and a queue of 127 commands.
    pub(crate) fn new(hardware: Hardware) -> Self {
        Self::with_config(hardware, &config(0))
    }

    pub(crate) fn with_config(hardware: Hardware, config: &ItsConfig) -> Self {
        Self::with_lpis(hardware, config, 0)
    }

    /// `num_lpis`: as `GICD_TYPER` has it; 0 for as many as there are INTIDs.
    pub(crate) fn with_lpis(hardware: Hardware, config: &ItsConfig, num_lpis: u8) -> Self {
        let board = Board::new(vec![hardware], 4);
        board.world().num_lpis = num_lpis;
        let lpis = lpis(&board);
        let its = Arc::new(Its::new(Arc::new(board.clone()), lpis.clone(), config).unwrap());
        for cpu in 0..4 {
            its.cpu_on(&redistributor(cpu)).unwrap();
        }
        Self { board, lpis, its }
    }

    pub(crate) fn attach(&self, device: u32, max: u32) -> Attachment {
        self.its.attach(DeviceId::new(device), max).unwrap()
    }

    /// Unmasked, independent events.
    pub(crate) fn map(&self, attachment: &Attachment, count: u16, cpu: u32) -> VectorBlock {
        self.its.map_events(attachment, request(count, cpu)).unwrap()
    }

    /// Sends the message of an LPI's event, as its device would.
    pub(crate) fn send(&self, lpi: Lpi) -> Option<(usize, u32)> {
        let (device, event, _) = self.its.event_of(lpi)?;
        self.board.world().message(0, device.get(), event.get())
    }

    /// LPIs that a CPU takes now.
    pub(crate) fn take(&self, cpu: usize) -> Vec<u32> {
        self.board.world().redistributors[cpu].acknowledge()
    }

    /// What `action` costs.
    pub(crate) fn traffic(&self, action: impl FnOnce()) -> Traffic {
        self.board.world().its[0].traffic = Traffic::default();
        action();
        self.board.world().its[0].traffic.clone()
    }
}

pub(crate) fn request(count: u16, cpu: u32) -> EventRequest {
    EventRequest {
        count: NonZeroU16::new(count).unwrap(),
        shape: Shape::Independent,
        cpu: Cpu::new(cpu),
        initially: Initially::Unmasked,
    }
}

/// The LPI at `index` of a block.
pub(crate) fn lpi(block: &VectorBlock, index: u16) -> Lpi {
    Lpi::try_from(block.vector(index).unwrap().get()).unwrap()
}
