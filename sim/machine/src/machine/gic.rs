//! Derives the model's configuration from the GIC and the ITSes in the description.

use super::shared_interrupts;
use super::{
    AddressPlan, BuildOptions, LpiDisabling, Refusal, Snooping, TargetAddresses, controllers, itses,
};
use crate::model::GicModel;
use crate::trace::Recorder;
use doorbell_hardware::bus::{AccessWidth, Bus, Doorbells, MmioDevice, Overlap};
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::its::{COMMAND_BYTES, COMMAND_WORDS};
use gic_arch::{gicr, gits};
use gic_firmware::{
    Coherence, ControllerIndex, ControllerKind, Description, Gic, GicVersion, Region,
};
use msi_types::trace::{Event, Observed, Observer as _};
use msi_types::{Delivery, DeviceId, MsiMessage, SignalMsi};
use std::sync::Arc;
use vgic::its::{ErrorPolicy, ItsConfig, PageSizes, RedistributorNaming};
use vgic::{
    Block, CpuConfig, DeviceWrite, GuestMemory as _, MAX_CPUS, RedistributorRegion, V2mConfig,
    Vgic, VgicConfig,
};

/// Minimum number of DeviceID bits in an ITS.
const LEAST_DEVICE_ID_BITS: u32 = 16;

/// The model's configuration and related data.
pub(crate) struct GicPlan {
    pub(crate) config: VgicConfig,
    /// Number of CPUs that take part; the model has all CPUs that firmware describes.
    pub(super) cpus: usize,
    its: Vec<(String, u64)>,
    /// The names of the controllers that receive messages.
    pub(super) controllers: Vec<String>,
}

impl GicPlan {
    pub(super) fn claim(&self, space: &mut AddressPlan) -> Result<(), Overlap> {
        for (name, region) in regions(&self.config, &self.its) {
            space.claim(&name, region)?;
        }
        Ok(())
    }
}

pub(crate) fn plan(description: &Description, options: &BuildOptions) -> Result<GicPlan, Refusal> {
    let gic = usable_gic(description)?;
    let affinities: Vec<_> =
        description.enabled_cpus().map(|cpu| cpu.affinity.value).take(MAX_CPUS).collect();
    if affinities.is_empty() {
        return Err(Refusal::NoCpus);
    }
    let controllers = controllers::check(description, options.controller)?;
    let itses: Vec<_> = itses(description).collect();
    let its_configs = itses.iter().zip(0..).map(|((index, _, base), position)| {
        let config = ItsConfig::new(*base)
            .with_device_id_bits(device_id_bits(description, *index))
            .with_redistributor_naming(match options.targets {
                TargetAddresses::ProcessorNumbers => RedistributorNaming::ProcessorNumber,
                TargetAddresses::Physical => RedistributorNaming::Address,
            })
            .with_coherence(model_coherence(options));
        // Real ITSes differ, so alternate between two configurations.
        if position % 2 == 1 {
            config
                .with_held_collections(4)
                .with_page_sizes(PageSizes::Any)
                .with_error_policy(ErrorPolicy::Stall)
        } else {
            config.with_held_collections(0).with_error_policy(ErrorPolicy::Skip)
        }
    });
    let direct_lpi = controllers::of_kind(description, ControllerKind::DirectLpi).next().is_some();
    let mut config = VgicConfig::new(1)
        .with_cpus(
            affinities
                .iter()
                .zip(0..)
                .map(|(affinity, number)| CpuConfig::new(*affinity, number))
                .collect(),
        )
        .with_distributor(gic.distributor.base())
        .with_redistributors(redistributors(gic, affinities.len()))
        .with_security(options.security)
        .with_lpi_id_bits(
            shared_interrupts::has_lpis(description).then_some(options.lpis.id_bits()),
        )
        .with_direct_lpi(direct_lpi)
        .with_can_clear_enable_lpis(options.lpi_disabling == LpiDisabling::Possible)
        .with_its(its_configs.collect())
        .with_coherence(model_coherence(options));
    shared_interrupts::configure(description, &mut config);
    let limit = options.cpus.map_or(usize::MAX, |cpus| usize::from(cpus.get()));
    let its =
        itses.iter().map(|(_, controller, base)| (controller.id.to_string(), *base)).collect();
    Ok(GicPlan { config, cpus: affinities.len().min(limit), its, controllers })
}

/// Adds a note for each pre-ITS window, because on this machine the devices behind the window write
/// directly to the ITS.
pub(super) fn note_windows(description: &Description, space: &mut AddressPlan) {
    for (_, its, _) in itses(description) {
        if let Some(window) = &its.pre_its {
            let instead = "the machine's devices write to GITS_TRANSLATER instead";
            space.note(format!(
                "{}: the pre-ITS window at {} is omitted: {instead}",
                its.id, window.value
            ));
        }
    }
}

fn usable_gic(description: &Description) -> Result<&Gic, Refusal> {
    let gic = description.gic.as_ref().ok_or(Refusal::NoGic)?;
    let name = || gic.id.to_string();
    if !gic.status.is_enabled() {
        return Err(Refusal::GicDisabled(name()));
    }
    if gic.version.value == GicVersion::V2 {
        return Err(Refusal::GicV2(name()));
    }
    if gic.redistributors.is_empty() {
        return Err(Refusal::NoRedistributors(name()));
    }
    Ok(gic)
}

/// Returns the redistributor regions that firmware describes, each filled with as many
/// redistributors as it can hold and the machine still needs.
fn redistributors(gic: &Gic, cpus: usize) -> Vec<RedistributorRegion> {
    let stride = gic.redistributor_stride.as_ref().map_or(gicr::STRIDE_V3, |stride| stride.value);
    let mut needed = u64::try_from(cpus).unwrap_or(u64::MAX);
    let mut regions = Vec::new();
    for region in &gic.redistributors {
        let count = (region.size() / stride.max(1)).min(needed);
        needed -= count;
        if count != 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            regions.push(RedistributorRegion::new(region.base(), count).with_stride(stride));
        }
    }
    regions
}

/// Returns the description without the parts that the machine omits: empty redistributor regions
/// and pre-ITS windows.
pub(crate) fn populated(description: &Description) -> Description {
    let mut populated = description.clone();
    if let Some(gic) = &mut populated.gic {
        let built = redistributors(gic, description.enabled_cpus().count().min(MAX_CPUS));
        gic.redistributors.retain(|region| built.iter().any(|built| built.base == region.base()));
    }
    for controller in &mut populated.controllers {
        controller.pre_its = None;
    }
    populated
}

/// Returns the number of bits needed for the DeviceIDs that firmware routes to the ITS.
fn device_id_bits(description: &Description, its: ControllerIndex) -> u8 {
    let hosts = description.hosts.iter().flat_map(|host| description.host_spans(host));
    let devices = description.devices.iter().flat_map(|device| description.device_spans(device));
    let highest = hosts
        .chain(devices)
        .filter(|span| span.controller == its)
        .map(|span| span.device_id_base.get().saturating_add(span.length.saturating_sub(1)))
        .max();
    let bits = highest.and_then(u32::checked_ilog2).map_or(0, |log2| log2 + 1);
    u8::try_from(bits.max(LEAST_DEVICE_ID_BITS)).unwrap_or(32)
}

/// Returns the coherence that the ITS registers report. The registers report coherent accesses even
/// where firmware denies them, so drivers must believe firmware rather than the registers.
fn model_coherence(options: &BuildOptions) -> vgic::its::Coherence {
    match options.snooping {
        Snooping::AsDescribed => vgic::its::Coherence::Coherent,
        Snooping::DeniedByRegisters => vgic::its::Coherence::NonCoherent,
    }
}

/// Returns which bus masters snoop the CPU caches.
pub(super) fn caches(description: &Description, options: &BuildOptions) -> Caches {
    if options.snooping == Snooping::DeniedByRegisters {
        return Caches::Hidden;
    }
    let gic = description.gic.iter().map(|gic| gic.coherence.value);
    let all: Vec<_> =
        gic.chain(itses(description).map(|(_, its, _)| its.coherence.value)).collect();
    let denied = all.iter().filter(|coherence| **coherence == Coherence::NonCoherent).count();
    match denied {
        0 => Caches::Snooped,
        count if count == all.len() => Caches::Hidden,
        _ => Caches::SnoopedBySome,
    }
}

/// Returns the register regions to be modeled.
fn regions(config: &VgicConfig, its: &[(String, u64)]) -> Vec<(String, Region)> {
    let distributor =
        ("the distributor".to_owned(), config.distributor, gic_arch::gicd::FRAME_SIZE);
    let redistributors = config.redistributors.iter().map(|region| {
        (
            "the redistributors".to_owned(),
            region.base,
            region.stride.saturating_mul(u64::from(region.count)),
        )
    });
    let its = its.iter().map(|(name, base)| (name.clone(), *base, gits::SIZE));
    let alias =
        config.mbi_alias.map(|base| ("mbi-alias".to_owned(), base, gic_arch::gicd::FRAME_SIZE));
    let frames =
        config.v2m.iter().map(|frame| ("a v2m frame".to_owned(), frame.base, V2mConfig::SIZE));
    let all =
        std::iter::once(distributor).chain(redistributors).chain(its).chain(alias).chain(frames);
    all.filter_map(|(name, base, size)| Some((name, Region::new(base, size)?))).collect()
}

/// Attaches the model's frames to the bus.
pub(crate) fn attach(
    model: &Arc<GicModel>,
    recorder: Option<&Arc<Recorder>>,
    bus: &mut Bus,
) -> Result<(), Overlap> {
    for region in model.with(|vgic| vgic.regions().to_vec()) {
        let addresses = &region.addresses;
        if let Some(claimed) = Region::new(addresses.start, addresses.end - addresses.start) {
            let frames = Arc::new(Frames { model: Arc::clone(model), base: addresses.start });
            let device: Arc<dyn MmioDevice> = match (recorder, region.block) {
                (Some(recorder), Block::Its(_)) => {
                    Arc::new(CommandWatch { frames, recorder: Arc::clone(recorder) })
                }
                _ => frames,
            };
            bus.attach(&format!("{:?}", region.block), claimed, device)?;
        }
    }
    Ok(())
}

/// Registers a doorbell for each ITS. Device writes to other addresses access the model's registers
/// or RAM.
pub(crate) fn doorbells(
    model: &Arc<GicModel>,
    ram: &Arc<Ram>,
    recorder: Option<&Arc<Recorder>>,
) -> Doorbells {
    let writes = Arc::new(Anywhere { model: Arc::clone(model), ram: Arc::clone(ram) });
    let mut doorbells = Doorbells::new(observed(writes, recorder));
    for (index, its) in model.config().its.iter().enumerate() {
        doorbells.listen(its.doorbell(), observed(model.its(index), recorder));
    }
    doorbells
}

/// Wraps `controller` so that it reports its messages to the recorder, if any.
pub(super) fn observed(
    controller: Arc<dyn SignalMsi<DeviceId>>,
    recorder: Option<&Arc<Recorder>>,
) -> Arc<dyn SignalMsi<DeviceId>> {
    match recorder {
        Some(recorder) => Arc::new(Observed::new(controller, Arc::clone(recorder))),
        None => controller,
    }
}

/// Target of the device writes that are not addressed to an ITS doorbell.
struct Anywhere {
    model: Arc<GicModel>,
    ram: Arc<Ram>,
}

impl SignalMsi<DeviceId> for Anywhere {
    fn signal_msi(&self, _: DeviceId, MsiMessage { address, data }: MsiMessage) -> Delivery {
        let write = |vgic: &Vgic| vgic.write_from_device(address, AccessWidth::Word, data.into());
        match self.model.with(write) {
            Ok(DeviceWrite::Message(delivery)) => delivery,
            Ok(DeviceWrite::Register) => Delivery::NoDoorbell,
            Err(_) => {
                // A write outside of RAM has no effect.
                let _ = self.ram.write(address, &data.to_le_bytes());
                Delivery::NoDoorbell
            }
        }
    }
}

/// A register region of the model.
struct Frames {
    model: Arc<GicModel>,
    base: u64,
}

impl MmioDevice for Frames {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        // The bus only forwards accesses to regions that the model has claimed.
        self.model.with(|vgic| vgic.read(self.base + offset, width)).unwrap_or(width.mask())
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        let _ = self.model.with(|vgic| vgic.write_until_done(self.base + offset, width, value));
    }
}

/// Registers of an ITS, which report each command that software adds to the queue.
struct CommandWatch {
    frames: Arc<Frames>,
    recorder: Arc<Recorder>,
}

impl CommandWatch {
    /// Reports the commands from queue offset `first` up to `GITS_CWRITER`.
    fn report(&self, first: u32) {
        let read = |offset| self.frames.read(offset, AccessWidth::Double);
        let queue = gits::Cbaser::from(read(gits::CBASER.offset().into()));
        let end = gits::Cwriter::from(read(gits::CWRITER.offset().into())).offset();
        let (mut offset, mut left) = (first, queue.bytes() / COMMAND_BYTES);
        while offset != end && left > 0 {
            let mut bytes = [0; COMMAND_BYTES as usize];
            let address = queue.address() + u64::from(offset);
            if self.frames.model.memory().read(address, &mut bytes).is_err() {
                return;
            }
            let mut words = [0; COMMAND_WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            self.recorder.observe(Event::Command { its: self.frames.base, words });
            offset = (offset + COMMAND_BYTES) % queue.bytes();
            left -= 1;
        }
    }
}

impl MmioDevice for CommandWatch {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        self.frames.read(offset, width)
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        let register = u64::from(gits::CWRITER.offset());
        let before = (offset == register)
            .then(|| gits::Cwriter::from(self.frames.read(register, AccessWidth::Double)).offset());
        self.frames.write(offset, width, value);
        if let Some(first) = before {
            self.report(first);
        }
    }
}
