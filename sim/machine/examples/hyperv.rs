//! Runs both ends of a Hyper-V virtual PCI bus: the guest's driver and the host's model. The host
//! runs whenever the guest waits.

#[path = "hardware/board.rs"]
mod board;
use board::{Board, DISTRIBUTOR};
use gic_arch::Affinity;
use gic_driver::{Gic, GicConfig, GicCpuInterface};
use hyperv_vpci::guest::{Bus, BusConfig, Kernel, SpiDomain, Vectors, Wait};
use hyperv_vpci::host::{Host, HostConfig, HostFunction, Injection};
use hyperv_vpci::protocol::{DeviceDescription, Slot};
use hyperv_vpci::ring::{HeapRing, RingChannel};
use msi_types::{BlockRequest, Cpu, Fit, IrqState, LocalCpu, MsiParent, NoIdentity, Rewrite};
use msi_types::{SignalMsi, TaskContext};
use std::num::{NonZeroU8, NonZeroU16};
use std::{error::Error, sync::Arc, sync::Mutex, sync::PoisonError};
type End = RingChannel<HeapRing, fn()>;
/// The kernel's only task lets the host run in each turn of a wait.
struct GuestTask(Arc<Board>, Mutex<(Host, End)>);
#[rustfmt::skip]
impl LocalCpu for GuestTask {
    fn irq_save(&self) -> IrqState { self.0.platform.irq_save() }
    fn irq_restore(&self, state: IrqState) { self.0.platform.irq_restore(state); }
    fn yield_now(&self) {
        self.relax();
    }
}
#[rustfmt::skip]
impl TaskContext for GuestTask { fn may_wait(&self) -> bool { true } }
#[rustfmt::skip]
impl Kernel for GuestTask {
    fn wake_ups(&self) -> u32 { 0 }
    fn wake(&self) {}
    fn wait(&self, _: u32, turn: u32) -> Wait {
        let (host, end) = &mut *self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let is_served = host.serve(end).is_ok() && turn < 100; // the host answers at once
        if is_served { Wait::Again } else { Wait::GiveUp }
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> { cpu.get().try_into().ok() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (board, cpu) = (Arc::new(Board::new(vgic::VgicConfig::new(1))?), Cpu::new(0));
    let config = GicConfig::new(DISTRIBUTOR, vec![board.redistributors], vec![Affinity::default()]);
    let gic = Arc::new(Gic::new(board.platform.clone(), config)?);
    board.execute(cpu, |registers| gic.cpu_on(cpu, registers))?;
    // The host offers a function. Its device model keeps `device`.
    let (slot, injection) = (Slot::new(0, 0), Injection::Spi(board.clone()));
    let mut host = Host::new(HostConfig::new(1, 0xfeed_0000, *b"a bus's instance"), injection)?;
    let function = DeviceDescription { vendor: 0x1414, device: 7, slot, ..Default::default() };
    let device = host.offer(HostFunction::new(function, [0xffff_0000, 0, 0, 0, 0, 0]))?;
    // The guest opens the bus and allocates a vector for the function.
    let (there, back) = (HeapRing::new(NonZeroU8::MIN)?, HeapRing::new(NonZeroU8::MIN)?);
    let there_end = RingChannel::new(back.clone(), there.clone(), (|| ()) as fn())?;
    let kernel = Arc::new(GuestTask(board.clone(), Mutex::new((host, there_end))));
    let end = RingChannel::new(there, back, (|| ()) as fn())?;
    let vectors = Vectors::Spis(Arc::new(SpiDomain::new(gic.clone(), kernel.clone())?));
    let bus = Bus::open(BusConfig::new(0x1000_0000, 5, 512), Box::new(end), vectors, kernel)?;
    let attached = bus.attach(slot.requester(5), 1)?;
    let request = BlockRequest::new(NonZeroU16::MIN, Fit::new(Rewrite::Masked), cpu);
    let block = bus.allocate(&attached, &request)?;
    bus.unmask(block.first());
    println!("{:?}", device.signal_msi(NoIdentity, bus.compose(&block, 0)?));
    let mut taken = Vec::new();
    board.execute(cpu, |it| gic.cpu_interface(it).handle_pending(|intid| taken.push(intid.get())));
    assert_eq!(taken, [block.first().get()]);
    Ok(())
}
