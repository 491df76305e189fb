//! A device that stores its interrupt messages in its own memory: six rings share a vector, and
//! each keeps a copy of the message. With direct LPIs, every CPU has its own doorbell, so moving
//! the vector means rewriting all six copies.

#[path = "hardware/board.rs"]
mod board;
use board::{Board, DISTRIBUTOR};
use gic_arch::{Affinity, IntId};
use gic_driver::{DirectLpi, Gic, GicConfig, GicCpuInterface};
use irq_domain::{Config, Interrupts, MsiDevice, MsiDeviceConfig};
use msi_types::{Cpu, Fit, HwIrq, Masking, MessageStore, MsiMessage, NoIdentity, RequesterId};
use msi_types::{Rewrite, Shape, SignalMsi, StoreError, StoreUpdate};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{error::Error, num::NonZeroU16};

struct Rings(Mutex<[Option<MsiMessage>; 6]>); // no messages are sent while it is locked
struct Update<'a>(MutexGuard<'a, [Option<MsiMessage>; 6]>);
#[rustfmt::skip]
impl StoreUpdate for Update<'_> {
    fn write(&mut self, _: u16, message: MsiMessage) { self.0.fill(Some(message)); }
    fn mask(&mut self, _: u16) {}
    fn unmask(&mut self, _: u16) {}
}
#[rustfmt::skip]
impl MessageStore for Rings {
    fn slots(&self) -> u16 { 1 }
    fn fit(&self) -> Fit { Fit::new(Rewrite::Atomic64) }
    fn masking(&self) -> Masking { Masking::None }
    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut Update(self.0.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(())
    }
    fn set_enabled(&self, _: bool) -> Result<(), StoreError> { Ok(()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let board = vgic::VgicConfig::new(2).with_direct_lpi(true).with_lpi_id_bits(Some(14));
    let (board, affinities) = (Board::new(board)?, [0, 1].map(|cpu| Affinity::new(0, 0, 0, cpu)));
    let config = GicConfig::new(DISTRIBUTOR, vec![board.redistributors], affinities.to_vec());
    let gic = Arc::new(Gic::new(board.platform.clone(), config)?);
    let (cpus, two) = ([0, 1].map(Cpu::new), NonZeroU16::MIN.saturating_add(1));
    cpus.iter().try_for_each(|cpu| board.execute(*cpu, |it| gic.cpu_on(*cpu, it)).map(drop))?;
    let interrupts = Interrupts::new(Config::new(two, board.platform.clone()))?;
    interrupts.cpu_online(cpus[1], |_| {})?;
    let rings = Arc::new(Rings(Mutex::default()));
    let parent = Arc::new(DirectLpi::new(gic.clone())?);
    let config = MsiDeviceConfig::new("wifi0", RequesterId::pci(1, 0, 0), parent, rings.clone());
    let device = MsiDevice::attach(&interrupts, config)?;
    device.allocate(Shape::Independent, 1..=1)?;
    let handle = device.request(0, "rings", |context| println!("on CPU {}", context.cpu()))?;
    for cpu in cpus {
        let mut dispatch = |intid: IntId| _ = interrupts.dispatch(cpu, HwIrq::new(intid.get()));
        handle.set_affinity(cpu)?;
        for message in rings.0.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten() {
            println!("{:?}", board.gic.signal_msi(NoIdentity, *message));
            board.execute(cpu, |it| gic.cpu_interface(it).handle_pending(&mut dispatch));
        }
    }
    assert_eq!(handle.count(), 12);
    Ok(())
}
