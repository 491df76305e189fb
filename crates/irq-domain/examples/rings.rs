//! A device that keeps its interrupt messages in its own memory: many rings, each told by a message
//! that the device sends itself. The driver sees a vector, a message and a handler; it does not see
//! which controller, which bus and which IOMMU lie behind. Here it is a doorbell for each CPU, so
//! that a move rewrites the message.
//!
//! ```text
//! cargo run -p irq-domain --example rings
//! ```

use irq_domain::{
    Config, Host, Interrupts, IrqState, LocalCpu, MsiDevice, MsiDeviceConfig, TaskContext,
};
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, Isolation, Masking, MessageStore, Move,
    MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated, Pending, RequesterId, Rewrite,
    Shape, StoreError, StoreUpdate,
};
use std::error::Error;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const RINGS: usize = 6;

fn main() -> Result<(), Box<dyn Error>> {
    let cpus = NonZeroU16::new(2).ok_or("no CPUs")?;
    let interrupts = Interrupts::new(Config::new(cpus, Arc::new(Kernel)))?;
    interrupts.cpu_online(Cpu::new(1), |_| {})?;
    let memory = Arc::new(RingMemory::default());
    let device = MsiDevice::attach(
        &interrupts,
        MsiDeviceConfig::new(
            "wifi0",
            RequesterId::pci(1, 0, 0),
            Arc::new(Doorbells::default()),
            memory.clone(),
        ),
    )?;

    // A vector for each ring, or else one for all: the controller has four.
    let each = device.allocate(Shape::Independent, 6..=6);
    let granted = each.or_else(|_| device.allocate(Shape::Independent, 1..=1))?;
    println!("{RINGS} rings share {} vector", granted.len());
    let vector = granted.first().ok_or("nothing was granted")?;
    let handle = device.request(vector.slot, "wifi0-rings", |context| {
        println!("handled on CPU {}", context.cpu());
    })?;

    // The message as it was granted, both halves of it, into each ring.
    let message = device.sent_message(vector.slot).ok_or("no message")?;
    memory.lock().fill(Some(message));
    interrupts.dispatch(memory.fire(0)?, handle.hwirq());

    // The rings follow when the interrupt moves.
    let elsewhere = Cpu::new(1 - vector.cpu.get());
    handle.set_affinity(elsewhere)?;
    for ring in 0..RINGS {
        let cpu = memory.fire(ring)?;
        assert_eq!(cpu, elsewhere);
        interrupts.dispatch(cpu, handle.hwirq());
    }
    println!("{} runs", handle.count());
    Ok(())
}

/// The device's memory: the message of each ring.
#[derive(Default)]
struct RingMemory(Mutex<[Option<MsiMessage>; RINGS]>);

impl RingMemory {
    fn lock(&self) -> MutexGuard<'_, [Option<MsiMessage>; RINGS]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device sends a ring's message; the CPU where it arrives.
    fn fire(&self, ring: usize) -> Result<Cpu, Box<dyn Error>> {
        let message = self.lock().get(ring).copied().flatten().ok_or("the ring has no message")?;
        Ok(Doorbells::cpu_at(message.address))
    }
}

/// An update that holds the device's lock: nothing is sent meanwhile, so any change is safe.
struct Update<'a>(MutexGuard<'a, [Option<MsiMessage>; RINGS]>);

impl StoreUpdate for Update<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        // One vector tells for all rings, or each for its own.
        if self.0.iter().all(Option::is_some) {
            self.0.fill(Some(message));
        } else if let Some(ring) = self.0.get_mut(usize::from(slot)) {
            *ring = Some(message);
        }
    }

    fn mask(&mut self, _: u16) {}

    fn unmask(&mut self, _: u16) {}
}

impl MessageStore for RingMemory {
    fn slots(&self) -> u16 {
        6
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Atomic64)
    }

    fn masking(&self) -> Masking {
        Masking::None
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut Update(self.lock()));
        Ok(())
    }

    fn set_enabled(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A controller with a doorbell for each CPU and four vectors.
#[derive(Default)]
struct Doorbells {
    used: AtomicU16,
    cpu: Mutex<Cpu>,
}

impl Doorbells {
    const FIRST: u64 = 0x080a_0040;
    const STRIDE: u64 = 0x2_0000;
    const VECTORS: u16 = 4;

    fn message(cpu: Cpu, hwirq: HwIrq) -> MsiMessage {
        MsiMessage { address: Self::FIRST + u64::from(cpu.get()) * Self::STRIDE, data: hwirq.get() }
    }

    fn cpu_at(address: u64) -> Cpu {
        Cpu::new(u32::from(address != Self::FIRST))
    }

    fn cpu(&self) -> MutexGuard<'_, Cpu> {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MsiParent for Doorbells {
    fn isolation(&self, _: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::SharedDoorbell("the example's doorbells"))
    }

    fn attach(&self, _: RequesterId, _: u32) -> Result<Attachment, MsiError> {
        Ok(Attachment::new(0))
    }

    fn detach(&self, _: Attachment) {}

    fn allocate(&self, _: &Attachment, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
        let (used, wanted) = (self.used.load(Relaxed), request.count.get());
        if used + wanted > Self::VECTORS {
            return Err(MsiError::NoVectors { wanted });
        }
        self.used.store(used + wanted, Relaxed);
        *self.cpu() = request.cpu;
        Ok(HwIrqBlock::new(HwIrq::new(8192 + u32::from(used)), request.count))
    }

    fn free(&self, _: &Attachment, block: HwIrqBlock) {
        self.used.fetch_sub(block.count().get(), Relaxed);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        Ok(Self::message(*self.cpu(), hwirq))
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let first = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let message = Some(Self::message(to, first));
        Ok(Move { first, count: NonZeroU16::MIN, message, from: *self.cpu(), to })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if outcome == MoveOutcome::Written {
            *self.cpu() = moved.to;
        }
        Ok(())
    }

    fn mask(&self, _: HwIrq) {}

    fn unmask(&self, _: HwIrq) {}

    fn set_pending(&self, _: HwIrq, _: Pending) {}

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "doorbells: vector {hwirq}")
    }
}

/// A kernel whose threads are no CPUs.
struct Kernel;

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn relax(&self) {
        std::thread::yield_now();
    }
}

impl TaskContext for Kernel {
    fn may_wait(&self) -> bool {
        true
    }
}

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        None
    }
}
