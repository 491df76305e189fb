//! Compares a real KVM, attribute by attribute, with the model's emulation of KVM's interface.

use super::count::{Count, accept};
use super::fired::{Fired, kvm};
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::{Affinity, gicd, gicr, gits, id};
use kvm_judge::model::ModelMachine;
use kvm_judge::scenario::{Dice, Plan};
use kvm_judge::{Failure, Machine, saving};
use vgic::{GuestMemory as _, VgicConfig};
use vgic_kvm::abi::{Attribute, Errno};
use vgic_kvm::{KvmDevice, KvmRegister, KvmView};

/// Number of random sequences, and of accesses per sequence.
const SEQUENCES: u64 = 4;
const ACCESSES: u32 = 1000;
/// Maximum number of differences that are printed.
const SHOWN: usize = 12;

pub(super) fn run(count: &mut Count) {
    count.case("every attribute's errors", every_error());
    for seed in 0..SEQUENCES {
        count.case(&format!("random attributes, sequence {seed}"), sequence(seed));
    }
}

/// Two machines in the same state: one on KVM, and one on the model with its KVM view.
struct Pair<'a> {
    kvm: Box<dyn Machine>,
    view: KvmView<'a>,
}

impl<'a> Pair<'a> {
    /// Brings both machines into the state that a plan creates on a third machine.
    fn new(
        plan: &Plan,
        config: &'a VgicConfig,
        model: &'a mut ModelMachine,
    ) -> Result<Self, Failure> {
        let snapshot = Fired::of(plan, kvm)?.snapshot;
        let mut kvm = kvm()?;
        saving::restore(&mut *kvm, &snapshot)?;
        for (address, bytes) in &snapshot.memory {
            model.ram().write(*address, bytes)?;
        }
        let state = model.state()?;
        let mut view = KvmView::new(config, state, model.ram())?;
        let registers = snapshot.attributes.iter().map(|(device, attribute, value)| KvmRegister {
            device: *device,
            attribute: *attribute,
            value: *value,
        });
        view.load(&registers.collect::<Vec<_>>())?;
        accept(view.left_out().is_empty(), || view.left_out().to_string())?;
        Ok(Self { kvm, view })
    }

    /// Reads an attribute on both machines. Returns the difference between the machines, if any.
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Option<String> {
        let known = known(device, attribute);
        let mask = |value: Result<u64, Errno>| value.map(|value| value & known);
        let (theirs, ours) =
            (mask(self.kvm.get(device, attribute)), mask(self.view.get(device, attribute)));
        let what = format!("get {device:?} {attribute:x?}: KVM {theirs:x?}, Doorbell {ours:x?}");
        (theirs != ours).then_some(what)
    }

    /// Asks both machines whether they have an attribute. Returns the difference between the
    /// machines, if any.
    fn has(&mut self, device: KvmDevice, attribute: Attribute) -> Option<String> {
        let (theirs, ours) = (self.kvm.has(device, attribute), self.view.has(device, attribute));
        let what = format!("has {device:?} {attribute:x?}: KVM {theirs:?}, Doorbell {ours:?}");
        (theirs != ours).then_some(what)
    }

    /// Writes an attribute on both machines. Returns the difference between the machines, if any.
    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Option<String> {
        let theirs = self.kvm.set(device, attribute, value);
        let ours = self.view.set(device, attribute, value);
        let what = format!(
            "set {device:?} {attribute:x?} to {value:#x}: KVM {theirs:?}, Doorbell {ours:?}"
        );
        (theirs != ours).then_some(what)
    }
}

/// Returns the bits of an attribute that must be equal. Excludes bits that identify the machine,
/// memory attributes that KVM replaces, and bits that only the model lets a guest set.
fn known(device: KvmDevice, attribute: Attribute) -> u64 {
    const QUEUE: u64 = 0x800f_ffff_ffff_f0ff;
    const TABLE: u64 = 0xc71f_ffff_ffff_f3ff;
    const LPI_TABLE: u64 = 0x400f_ffff_ffff_f01f;
    let within = |offset: u32, register: u32| offset & !7 == register;
    let halved =
        |offset: u32, mask: u64| if offset & 4 == 0 { mask & 0xffff_ffff } else { mask >> 32 };
    match attribute {
        // KVM has no separate enable for Group 0.
        Attribute::Distributor { offset } if offset == gicd::CTLR.offset() => !0x81,
        Attribute::Distributor { offset } if offset == gicd::TYPER.offset() => 0,
        Attribute::Redistributor { offset, .. } if within(offset, gicr::TYPER.offset()) => 0,
        // KVM's register doesn't include the GIC's revision.
        Attribute::Redistributor { offset, .. } if offset == gicr::IIDR.offset() => !0xf000,
        Attribute::Redistributor { offset, .. }
            if within(offset, gicr::PROPBASER.offset())
                || within(offset, gicr::PENDBASER.offset()) =>
        {
            halved(offset, LPI_TABLE)
        }
        Attribute::SystemRegister { register, .. } if register == icc::CTLR.encoding() => {
            !icc::Ctlr::new().with_id_bits_code(7).into_bits()
        }
        Attribute::Its { offset } if device != KvmDevice::Gic => {
            match u32::try_from(offset).unwrap_or(0) {
                offset if offset == gits::CBASER.offset() => QUEUE,
                offset if gits::BASER.iter().any(|table| table.offset() == offset) => TABLE,
                _ => u64::MAX,
            }
        }
        _ => u64::MAX,
    }
}

fn judge(differences: Vec<String>) -> Result<(), Failure> {
    let count = differences.len();
    if count == 0 {
        return Ok(());
    }
    let shown = differences.into_iter().take(SHOWN).collect::<Vec<_>>().join("; ");
    Err(format!("{count} differences: {shown}").into())
}

/// Queries and reads every attribute, then writes the same value back.
fn every_error() -> Result<(), Failure> {
    let plan = Plan::of(1);
    let mut model = ModelMachine::new()?;
    let config = model.config().clone();
    let mut pair = Pair::new(&plan, &config, &mut model)?;
    let mut differences = Vec::new();
    for (device, attribute) in every_attribute() {
        differences.extend(pair.has(device, attribute));
        differences.extend(pair.get(device, attribute));
        if !matches!(attribute, Attribute::Control(_)) {
            let value = pair.kvm.get(device, attribute).unwrap_or(0);
            differences.extend(pair.set(device, attribute, value));
        }
    }
    judge(differences)
}

fn every_attribute() -> impl Iterator<Item = (KvmDevice, Attribute)> {
    let cpu = Affinity::from_packed(1);
    let stranger = Affinity::from_packed(7);
    let frames = (0..0x2000)
        .chain(0x6000..0x8000)
        .chain(0xff00..0x1_0010)
        .step_by(4)
        .chain(1..0x20)
        .map(|offset| Attribute::Distributor { offset });
    let of = |cpu| move |offset| Attribute::Redistributor { cpu, offset };
    let redistributor = (0..0x1000).chain(0xff00..0x1_1000).chain(0x1_ff00..0x2_0010);
    let frames = frames.chain(redistributor.step_by(4).chain(1..0x20).map(of(cpu)));
    let frames = frames.chain([0, 0x30, 0x1_0080].map(of(stranger)));
    // Try the EL1 system registers, and some others.
    let registers =
        (0xc000..0xc800).chain((0..=u16::MAX).step_by(37)).map(SysRegEncoding::from_packed);
    let interface = registers.map(move |register| Attribute::SystemRegister { cpu, register });
    let none = Attribute::SystemRegister { cpu: stranger, register: icc::PMR.encoding() };
    let lines = (0..0x800_u64).map(|number| Attribute::decode(7, number));
    let stranger_s_lines = [0, 32].map(|number| Attribute::decode(7, number | 7 << 32));
    let levels = lines.chain(stranger_s_lines).filter_map(Result::ok);
    let commands =
        (0..8).flat_map(|number| [Attribute::Address(number), Attribute::Control(number)]);
    let both = commands.chain([
        Attribute::InterruptCount,
        Attribute::Distributor { offset: 0 },
        Attribute::Its { offset: 0 },
    ]);
    let both: Vec<_> = both.collect();
    let its = (0..0x400).chain(0xff00..0x1_0100).chain(0x2_0000..0x2_0010);
    let its = its.map(|offset| Attribute::Its { offset }).chain(both.clone());
    let gic = frames.chain(interface).chain([none]).chain(levels).chain(both);
    gic.map(|attribute| (KvmDevice::Gic, attribute))
        .chain(its.map(|attribute| (KvmDevice::Its(1), attribute)))
}

/// Writes and reads attributes at random. The ITS is disabled in half of the sequences.
fn sequence(seed: u64) -> Result<(), Failure> {
    let plan = Plan::of(seed);
    let mut model = ModelMachine::new()?;
    let config = model.config().clone();
    let mut pair = Pair::new(&plan, &config, &mut model)?;
    let mut dice = Dice::new(seed);
    let enabled = seed % 2 == 1;
    let mut differences = Vec::new();
    let enable = Attribute::Its { offset: gits::CTLR.offset().into() };
    for its in [KvmDevice::Its(0), KvmDevice::Its(1)].into_iter().filter(|_| !enabled) {
        differences.extend(pair.set(its, enable, 0));
    }
    let saved = saving::saved();
    for _ in 0..ACCESSES {
        let (device, attribute) = any_attribute(&mut dice, &saved);
        if !is_settable(attribute, enabled) {
            continue;
        }
        let value = any_value(&mut dice, attribute);
        differences.extend(pair.set(device, attribute, value));
        differences.extend(pair.get(device, attribute));
        let (device, attribute) = any_attribute(&mut dice, &saved);
        differences.extend(pair.get(device, attribute));
    }
    judge(differences)
}

/// Returns either an attribute that a save includes, or an attribute that clears bits.
fn any_attribute(dice: &mut Dice, saved: &[(KvmDevice, Attribute)]) -> (KvmDevice, Attribute) {
    let which = dice.below(u32::try_from(saved.len()).unwrap_or(1)) as usize;
    let (device, attribute) = saved[which];
    let clears =
        |offset: u32| if matches!(offset & 0xffff, 0x100..0x400) { offset | 0x80 } else { offset };
    let attribute = match attribute {
        Attribute::Distributor { offset } if dice.one_in(3) => {
            Attribute::Distributor { offset: clears(offset) }
        }
        Attribute::Redistributor { cpu, offset } if dice.one_in(3) => {
            Attribute::Redistributor { cpu, offset: clears(offset) }
        }
        attribute => attribute,
    };
    (device, attribute)
}

/// Returns `false` for attributes that must not be set. If KVM's ITS is enabled, it executes
/// commands as soon as `GITS_CWRITER` is set, so it would execute random memory contents.
fn is_settable(attribute: Attribute, its_enabled: bool) -> bool {
    match attribute {
        Attribute::Its { offset } if offset == u64::from(gits::CTLR.offset()) => false,
        Attribute::Its { offset } if offset == u64::from(gits::CWRITER.offset()) => !its_enabled,
        _ => true,
    }
}

fn any_value(dice: &mut Dice, attribute: Attribute) -> u64 {
    let mut value = u64::from(dice.below(u32::MAX)) << 32 | u64::from(dice.below(u32::MAX));
    if dice.one_in(2) {
        value &= u64::from(dice.below(u32::MAX));
    }
    // KVM accepts only some values for these attributes, and rounds the CPU interface's values only
    // when the vCPU runs.
    match attribute {
        Attribute::SystemRegister { register, .. } if register == icc::PMR.encoding() => {
            value & 0xf8
        }
        Attribute::SystemRegister { register, .. }
            if register == icc::BPR0.encoding() || register == icc::BPR1.encoding() =>
        {
            value & 7 | 3
        }
        Attribute::SystemRegister { register, .. } if register == icc::CTLR.encoding() => {
            value & 0x83 | 0x8400
        }
        Attribute::Distributor { offset } if offset == gicd::IIDR.offset() && dice.one_in(2) => {
            // With the second revision, guests on KVM have different registers.
            0x4b00_043b | [0, 1, 3, 3, 4][dice.below(5) as usize] << 12
        }
        Attribute::Distributor { offset } if offset == id::PIDR2.offset() => 0,
        _ if attribute.bytes() == 4 => value & 0xffff_ffff,
        _ => value,
    }
}
