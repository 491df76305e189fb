//! Sets up an ITS driver on a board with CPUs online.

use crate::fake::{Board, Hardware, ITS, ITS_STRIDE, Traffic};
use gic_arch::Lpi;
use gic_driver::its::{EventRequest, ProbeError};
use gic_driver::{Gic, Its, ItsConfig, ItsError};
use msi_types::{Attachment, Cpu, DeviceId, HwIrqBlock};
use std::num::NonZeroU16;
use std::sync::Arc;

pub(crate) struct Setup {
    pub(crate) board: Board,
    pub(crate) gic: Arc<Gic<Board>>,
    pub(crate) its: Arc<Its<Board>>,
}

/// Returns a board's GIC, with all CPUs off.
pub(crate) fn gic(board: &Board) -> Arc<Gic<Board>> {
    board.gic()
}

pub(crate) fn turn_on(gic: &Gic<Board>, cpu: u32) {
    let cpu = Cpu::new(cpu);
    gic.cpu_on(cpu, &gic.platform().registers(cpu)).unwrap();
}

pub(crate) fn config(index: u64) -> ItsConfig {
    ItsConfig::new(ITS + index * ITS_STRIDE, 4).with_queue_bytes(0x1000)
}

/// Probes an ITS without turning on a CPU.
pub(crate) fn probe(
    hardware: Hardware,
    config: &ItsConfig,
) -> (Board, Result<Its<Board>, ProbeError>) {
    let board = Board::with_its(vec![hardware], 4);
    let its = Its::new(gic(&board), config);
    (board, its)
}

impl Setup {
    /// Sets up four online CPUs and a queue for 127 commands.
    pub(crate) fn new(hardware: Hardware) -> Self {
        Self::with_config(hardware, &config(0))
    }

    pub(crate) fn with_config(hardware: Hardware, config: &ItsConfig) -> Self {
        Self::with_lpis(hardware, config, 0)
    }

    /// Sets up an ITS with `num_lpis` as in `GICD_TYPER`; 0 means that all INTIDs from 8192 on are
    /// LPIs.
    pub(crate) fn with_lpis(hardware: Hardware, config: &ItsConfig, num_lpis: u8) -> Self {
        let board = Board::with_its(vec![hardware], 4);
        board.world().distributor.typer.set_num_lpis(num_lpis);
        let setup = Self::on(board, config);
        (0..4).for_each(|cpu| setup.bring_up(cpu));
        setup
    }

    /// Sets up an ITS without turning on a CPU.
    pub(crate) fn on(board: Board, config: &ItsConfig) -> Self {
        let gic = gic(&board);
        let its = Arc::new(Its::new(gic.clone(), config).unwrap());
        Self { board, gic, its }
    }

    pub(crate) fn bring_up(&self, cpu: u32) {
        turn_on(&self.gic, cpu);
        self.cpu_on(cpu).unwrap();
    }

    /// Makes the CPU a target of the ITS.
    pub(crate) fn cpu_on(&self, cpu: u32) -> Result<(), ItsError> {
        self.its.cpu_on(Cpu::new(cpu))
    }

    pub(crate) fn attach(&self, device: u32, max: u32) -> Attachment {
        self.its.attach(DeviceId::new(device), max).unwrap()
    }

    /// Maps unmasked, independent events.
    pub(crate) fn map(&self, attachment: &Attachment, count: u16, cpu: u32) -> HwIrqBlock {
        self.its.map_events(attachment, request(count, cpu)).unwrap()
    }

    /// Sends the message for an LPI's event, as its device would.
    pub(crate) fn send(&self, lpi: Lpi) -> Option<(usize, u32)> {
        let (device, event, _) = self.its.event_of(lpi)?;
        self.board.world().message(0, device.get(), event.get())
    }

    /// Takes the LPIs that are signaled to a CPU.
    pub(crate) fn take(&self, cpu: usize) -> Vec<u32> {
        self.board.world().redistributors[cpu].acknowledge()
    }

    /// Returns the accesses to the command queue that `action` makes.
    pub(crate) fn traffic(&self, action: impl FnOnce()) -> Traffic {
        self.board.world().its[0].traffic = Traffic::default();
        action();
        self.board.world().its[0].traffic.clone()
    }
}

pub(crate) fn request(count: u16, cpu: u32) -> EventRequest {
    EventRequest::new(NonZeroU16::new(count).unwrap(), Cpu::new(cpu))
}

/// Returns the LPI at `index` in a block.
pub(crate) fn lpi(block: &HwIrqBlock, index: u16) -> Lpi {
    Lpi::try_from(block.hwirq(index).unwrap().get()).unwrap()
}
