//! Doorbell's model as one of the two machines. It answers as QEMU's server does.

use super::access::{Access, Width};
use super::acknowledge::{self, Acknowledged};
use super::address_map::{CPUS, RAM, RAM_BYTES, TRANSLATER};
use super::peer::{Asserted, Peer, PeerReply, Watch};
use super::world::World;
use anyhow::Result;
use msi_types::{Cpu, DeviceId, Kick, Level, Line, MsiMessage, SetLine};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use vgic::{GuestMemory, Inputs, Progress, Vcpu, Vgic, VgicConfig, VmMemory};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// DeviceID of the messages that cases write, which have no requester. QEMU uses the same.
const SENDER: DeviceId = DeviceId::new(0);
/// Number of SPIs, whose inputs precede those of PPIs.
pub(super) const SPIS: u16 = 256;
/// Number of inputs of each CPU.
pub(super) const PRIVATE: u16 = 32;

/// Doorbell's model, running in this process.
#[derive(Debug)]
pub struct Model {
    world: World,
    config: VgicConfig,
    watch: Watch,
    gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    ram: Arc<Ram>,
}

type Ram = VmMemory<Arc<GuestMemoryMmap<()>>>;

/// Does nothing: vCPUs act only on request, so they never sleep.
struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

impl Model {
    /// Creates a world's model, which watches these inputs.
    ///
    /// # Errors
    /// Returns [`vgic::ConfigError`] if the model rejects the configuration.
    pub fn new(world: World, watch: Watch) -> Result<Self> {
        Ok(Self { watch, ..Self::of(world, world.model(CPUS))? })
    }

    /// Creates the model of a configuration.
    pub(super) fn of(world: World, config: VgicConfig) -> Result<Self> {
        let (gic, vcpus, ram) = create(&config)?;
        Ok(Self { world, config, watch: Watch::All, gic, vcpus, ram })
    }

    /// Enables the CPUs' interfaces for the interrupts that software can use in `world`.
    pub(super) fn listen(&mut self, world: World) -> Result<()> {
        self.vcpus.iter_mut().try_for_each(|vcpu| acknowledge::listen(vcpu, world))
    }

    /// Returns a CPU's interrupt inputs.
    pub(super) fn inputs(&mut self, cpu: usize) -> Inputs {
        self.vcpus[cpu].inputs()
    }

    fn carry_out(&self, access: Access) -> String {
        match access {
            Access::Load { at, width } => format!("OK {:#018x}", self.load(at, width)),
            Access::Dump { at, bytes } => {
                let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
                // Bytes outside of RAM stay zero.
                _ = self.ram.read(at, &mut data);
                data.iter().fold("OK 0x".to_owned(), |mut text, byte| {
                    // Writing to a string cannot fail.
                    _ = write!(text, "{byte:02x}");
                    text
                })
            }
            _ => {
                self.change(access);
                "OK".to_owned()
            }
        }
    }

    /// Carries out an access that has no result.
    pub(super) fn change(&self, access: Access) {
        match access {
            Access::Store { at, width, value } if is_ram(at) => {
                // A write outside of RAM has no effect.
                _ = self.ram.write(at, &value.to_le_bytes()[..width.bytes() as usize]);
            }
            Access::Store { at, width, value } => {
                for (offset, width) in pieces(at, width) {
                    self.write(
                        at.wrapping_add(offset),
                        width,
                        value >> (8 * offset) & width.mask(),
                    );
                }
            }
            Access::Fill { at, bytes, byte } => {
                _ = self.ram.write(at, &vec![byte; usize::try_from(bytes).unwrap_or(0)]);
            }
            Access::Line { input, level } => {
                let level = if level == 0 { Level::Low } else { Level::High };
                self.gic.set_line(line(input), level);
            }
            Access::Load { .. } | Access::Dump { .. } | Access::Acknowledge { .. } => {}
        }
    }

    /// Loads a little-endian number of up to 8 bytes. Unclaimed addresses read as zero.
    pub(super) fn load(&self, at: u64, width: Width) -> u64 {
        if is_ram(at) {
            let mut bytes = [0; 8];
            // Bytes outside of RAM stay zero.
            _ = self.ram.read(at, &mut bytes[..width.bytes() as usize]);
            return u64::from_le_bytes(bytes);
        }
        let read = |(offset, width)| {
            self.gic.read(at.wrapping_add(offset), width).unwrap_or(0) << (8 * offset)
        };
        pieces(at, width).map(read).fold(0, |number, piece| number | piece)
    }

    fn write(&self, address: u64, width: Width, value: u64) {
        let is_message = address == TRANSLATER && width >= Width::Half;
        match self.gic.its(0).filter(|_| is_message).zip(u32::try_from(value).ok()) {
            Some((its, data)) => drop(its.signal_msi(SENDER, MsiMessage { address, data })),
            // The GIC rejects only writes outside its regions, and such writes have no effect.
            None => drop(self.gic.write_until_done(address, width, value)),
        }
        // QEMU's ITS executes all commands on a write.
        while self.gic.poll() == Progress::Unfinished {}
    }
}

fn create(config: &VgicConfig) -> Result<(Arc<Vgic>, Vec<Vcpu>, Arc<Ram>)> {
    let ranges = [(GuestAddress(RAM), RAM_BYTES)];
    let ram = Arc::new(VmMemory(Arc::new(GuestMemoryMmap::from_ranges(&ranges)?)));
    let (gic, vcpus) = Vgic::new(config.clone(), ram.clone(), Arc::new(NoKick))?;
    Ok((gic, vcpus, ram))
}

fn is_ram(at: u64) -> bool {
    (RAM..RAM + RAM_BYTES as u64).contains(&at)
}

/// Splits an access to registers into aligned pieces, each of which is one access of a device, as
/// QEMU does. Returns their offsets and widths.
fn pieces(at: u64, width: Width) -> impl Iterator<Item = (u64, Width)> {
    let most = if at >> 16 == TRANSLATER >> 16 { Width::Word } else { Width::Double };
    let end = u64::from(width.bytes());
    let mut next = 0;
    std::iter::from_fn(move || {
        let offset = next;
        let fits = |piece: &Width| {
            let bytes = u64::from(piece.bytes());
            *piece <= most && offset + bytes <= end && at.wrapping_add(offset).is_multiple_of(bytes)
        };
        let widths = [Width::Double, Width::Word, Width::Half, Width::Byte];
        let piece = widths.into_iter().find(fits)?;
        next += u64::from(piece.bytes());
        Some((offset, piece))
    })
}

/// Returns the line of an input: the SPIs, followed by 32 inputs for each CPU.
fn line(input: u16) -> Line {
    match input.checked_sub(SPIS) {
        None => Line::Spi(32 + u32::from(input)),
        Some(private) => {
            let cpu = Cpu::new(u32::from(private / PRIVATE));
            Line::Ppi { cpu, intid: u32::from(private % PRIVATE) }
        }
    }
}

impl Peer for Model {
    fn reset(&mut self) -> Result<()> {
        (self.gic, self.vcpus, self.ram) = create(&self.config)?;
        self.listen(self.world)
    }

    fn replies(&mut self, accesses: &mut dyn Iterator<Item = Access>) -> Result<Vec<PeerReply>> {
        let answers = accesses
            .map(|access| PeerReply { text: self.carry_out(access), asserted: self.asserted() });
        Ok(answers.collect())
    }

    fn acknowledge(&mut self, cpus: Range<u16>) -> Result<Vec<Vec<Acknowledged>>> {
        let vcpus = &mut self.vcpus[usize::from(cpus.start)..usize::from(cpus.end)];
        vcpus.iter_mut().map(|vcpu| acknowledge::acknowledge(vcpu, self.world)).collect()
    }

    fn asserted(&mut self) -> Asserted {
        let watched = match self.watch {
            Watch::All => 0..usize::from(CPUS),
            Watch::One => 1..2,
        };
        let count = watched.len();
        let inputs = self.vcpus[watched].iter_mut().map(Vcpu::inputs).enumerate();
        let bits = inputs.map(|(cpu, inputs)| {
            u32::from(inputs.irq) << cpu | u32::from(inputs.fiq) << (count + cpu)
        });
        Asserted(bits.fold(0, |all, bits| all | bits))
    }

    fn watch(&self) -> Watch {
        self.watch
    }
}
