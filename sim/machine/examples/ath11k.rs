//! A driver of ath11k's kind: the device has a PCI MSI of four vectors, whose address and data the
//! driver copies into the device's rings. With direct LPIs, every CPU has its own doorbell, so
//! moving one vector changes the message of all four, and the driver updates its copies.

#[path = "hardware/board.rs"]
mod board;
use board::{Board, DISTRIBUTOR};
use gic_arch::{Affinity, IntId};
use gic_driver::{DirectLpi, Gic, GicConfig, GicCpuInterface};
use irq_domain::{Config, Interrupts, IrqHandle, MsiDevice, MsiDeviceConfig};
use msi_types::{Cpu, DeviceId, Fit, HwIrq, Masking, MessageStore, MsiMessage, RequesterId};
use msi_types::{Rewrite, Shape, SignalMsi, Storage, StoreError, StoreUpdate};
use std::sync::{Arc, Mutex, PoisonError};
use std::{error::Error, num::NonZeroU16};

/// The MSI capability in configuration space, which holds one message for all vectors.
#[derive(Default)]
struct Capability(Mutex<Message>);
#[derive(Default)]
struct Message(Option<MsiMessage>);
#[rustfmt::skip]
impl StoreUpdate for Message {
    fn write(&mut self, _: u16, message: MsiMessage) { self.0 = Some(message); }
    fn mask(&mut self, _: u16) {}
    fn unmask(&mut self, _: u16) {}
}
#[rustfmt::skip]
impl MessageStore for Capability {
    fn slots(&self) -> u16 { 4 }
    fn fit(&self) -> Fit { Fit::new(Rewrite::LowWordOnly).with_data_bits(16) }
    fn masking(&self) -> Masking { Masking::None }
    fn storage(&self) -> Storage { Storage::Bus }
    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
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
    let parent = Arc::new(DirectLpi::new(gic.clone())?);
    let rings = Arc::new(Mutex::new([None; 4])); // what the device writes when a ring has work
    let copies = rings.clone();
    let store = Arc::new(Capability::default());
    let config = MsiDeviceConfig::new("wifi0", RequesterId::pci(1, 0, 0), parent, store);
    let device = MsiDevice::attach(
        &interrupts,
        config.with_copy(Arc::new(move |vector, message| {
            copies.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(vector)] = message;
        })),
    )?;
    let vectors = device.allocate(Shape::AlignedGroup, 4..=4)?;
    let request = |slot| device.request(slot, "ring", |context| println!("CPU {}", context.cpu()));
    let handles = vectors.iter().map(|it| request(it.slot)).collect::<Result<Vec<_>, _>>()?;
    let work = |cpu| {
        for message in rings.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten() {
            println!("{:?}", board.signal_msi(DeviceId::default(), *message));
        }
        let mut dispatch = |intid: IntId| _ = interrupts.dispatch(cpu, HwIrq::new(intid.get()));
        board.execute(cpu, |it| gic.cpu_interface(it).handle_pending(&mut dispatch));
    };
    for (vector, cpu) in vectors.iter().zip([cpus[1], cpus[0], cpus[1]]) {
        interrupts.set_affinity(vector.irq, cpu)?; // as a tool that balances interrupts does
        work(cpu);
    }
    interrupts.cpu_offline(cpus[1], |stranded| println!("{stranded:?}"))?;
    work(cpus[0]);
    assert!(handles.iter().map(IrqHandle::count).eq([4; 4]));
    Ok(())
}
