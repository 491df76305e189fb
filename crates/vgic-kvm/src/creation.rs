//! A machine that comes into being by KVM's attributes.

mod incomplete;

pub use incomplete::KvmIncomplete;

use crate::abi::{Attribute, Errno, RedistributorRegion, control, frame};
use crate::config::{kvm_config, kvm_its_config};
use crate::regions::{Regions, Surroundings};
use crate::register::KvmDevice;
use crate::word::low_word;
use crate::{attributes, its, revision};
use alloc::vec::Vec;
use gic_arch::{Iidr, IntId, IntIdClass, gicd, gits};
use vgic::{CpuConfig, MAX_CPUS, VgicConfig};

/// A GICv3 and its ITSes between their creation and the machine's first run, for monitors that
/// speak KVM's device API. It takes `KVM_CREATE_DEVICE`, then `KVM_SET_DEVICE_ATTR`,
/// `KVM_GET_DEVICE_ATTR` and `KVM_HAS_DEVICE_ATTR`, in KVM's orders and with KVM's errors. In the
/// end it gives a [`VgicConfig`].
///
/// | KVM | here |
/// |---|---|
/// | `KVM_CREATE_DEVICE` of the GICv3 | [`new`](Self::new); `EEXIST` for a second one is the caller's to say |
/// | `KVM_CREATE_VCPU` | [`add_cpu`](Self::add_cpu), before or after the addresses, not after `INIT` |
/// | `KVM_CREATE_DEVICE` of an ITS | [`add_its`](Self::add_its), at any time |
/// | attributes | [`set`](Self::set), [`get`](Self::get), [`has`](Self::has) |
/// | the first `KVM_RUN` | [`config`](Self::config) |
///
/// As in KVM, `INIT` looks at no address, and a frame may be given one afterwards. What is missing
/// or overlaps shows at the first run. Registers are there once the model is made; until then they
/// are `EBUSY`. The exception is `GICD_IIDR`, whose revision is what the machine will be. It may be
/// set before `INIT` (Linux 6.17 and later) and after it (all). Then comes
/// [`KvmView`](crate::KvmView).
///
/// Where an attribute's value lies in the caller's memory is its own business, and so is `EFAULT`
/// for it.
///
/// # Example
///
/// ```
/// use vgic_kvm::abi::{Attribute, Errno, control, frame};
/// use vgic::CpuConfig;
/// use vgic_kvm::{KvmCreation, KvmDevice};
///
/// let mut creation = KvmCreation::new(40);
/// for cpu in 0..4 {
///     creation.add_cpu(CpuConfig::in_clusters_of_sixteen(cpu))?;
/// }
/// let gic = KvmDevice::Gic;
/// creation.set(gic, Attribute::InterruptCount, 96)?;
/// creation.set(gic, Attribute::Address(frame::DISTRIBUTOR), 0x0800_0000)?;
/// creation.set(gic, Attribute::Address(frame::REDISTRIBUTORS), 0x080a_0000)?;
/// creation.set(gic, Attribute::Control(control::INIT), 0)?;
/// assert_eq!(creation.set(gic, Attribute::InterruptCount, 128), Err(Errno::Busy));
///
/// let its = creation.add_its();
/// creation.set(its, Attribute::Address(frame::ITS), 0x0808_0000)?;
/// creation.set(its, Attribute::Control(control::INIT), 0)?;
///
/// let config = creation.config()?;
/// assert_eq!((config.cpus.len(), config.spis, config.its.len()), (4, 64, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvmCreation {
    address_bits: u8,
    cpus: Vec<CpuConfig>,
    interrupts: Option<u16>,
    distributor: Option<u64>,
    regions: Regions,
    its: Vec<Option<u64>>,
    maintenance: Option<IntId>,
    iidr: Iidr,
    initialised: Initialised,
}

/// State of `INIT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Initialised {
    No,
    Yes,
}

/// KVM's, if nothing else is said: 256 INTIDs, the private ones included.
const DEFAULT_INTERRUPTS: u16 = 256;
/// Private INTIDs.
const PRIVATE: u16 = 32;
/// Most INTIDs below 1024 that can be asked for.
const MOST_INTERRUPTS: u16 = 992;

impl KvmCreation {
    /// A GICv3 that was just created, of a machine with guest physical addresses of so many bits
    /// (KVM's own choice is 40).
    pub fn new(address_bits: u8) -> Self {
        Self {
            address_bits,
            cpus: Vec::new(),
            interrupts: None,
            distributor: None,
            regions: Regions::default(),
            its: Vec::new(),
            maintenance: None,
            iidr: revision::IIDR.with_revision(revision::INVALIDATION),
            initialised: Initialised::No,
        }
    }

    /// `KVM_CREATE_VCPU`: its number is the [`processor_number`](CpuConfig::processor_number), its
    /// affinity that of its `MPIDR_EL1`. The first redistributor that is free becomes its own.
    ///
    /// # Errors
    /// `EBUSY` once initialised, `EINVAL` for a number from 512 on and if redistributors overlap
    /// with the distributor, `EEXIST` for a number that is taken.
    pub fn add_cpu(&mut self, cpu: CpuConfig) -> Result<(), Errno> {
        if usize::from(cpu.processor_number) >= MAX_CPUS {
            return Err(Errno::Invalid);
        }
        if self.initialised == Initialised::Yes {
            return Err(Errno::Busy);
        }
        // A region without a count grows when the vCPU is there.
        let around = self.surroundings();
        let mut regions = self.regions.clone();
        regions.place(around.cpus + 1, &around)?;
        if self.cpus.iter().any(|other| other.processor_number == cpu.processor_number) {
            return Err(Errno::Exists);
        }
        self.regions = regions;
        self.cpus.push(cpu);
        Ok(())
    }

    /// `KVM_CREATE_DEVICE` of an ITS.
    pub fn add_its(&mut self) -> KvmDevice {
        self.its.push(None);
        KvmDevice::Its(self.its.len() - 1)
    }

    /// `KVM_SET_DEVICE_ATTR`. Bits of `value` beyond the attribute's width are ignored.
    ///
    /// # Errors
    /// As KVM's. Nothing was changed then.
    pub fn set(
        &mut self,
        device: KvmDevice,
        attribute: Attribute,
        value: u64,
    ) -> Result<(), Errno> {
        match device {
            KvmDevice::Gic => self.set_gic(attribute, value),
            KvmDevice::Its(index) => self.set_its(index, attribute, value),
        }
    }

    fn set_gic(&mut self, attribute: Attribute, value: u64) -> Result<(), Errno> {
        match attribute {
            Attribute::Address(frame::DISTRIBUTOR) => {
                self.check_address(self.distributor, value, gicd::FRAME_SIZE)?;
                self.distributor = Some(value);
                Ok(())
            }
            Attribute::Address(frame::REDISTRIBUTORS) => self.add_region(value, None, 0),
            Attribute::Address(frame::REDISTRIBUTOR_REGION) => {
                let region = RedistributorRegion::from(value);
                if region.count() == 0 || region.flags() != 0 {
                    return Err(Errno::Invalid);
                }
                // KVM keeps eight bits of the number.
                let [index, _] = region.index().to_le_bytes();
                self.add_region(region.base(), Some(region.count()), index)
            }
            Attribute::InterruptCount => self.set_interrupt_count(low_word(value)),
            Attribute::MaintenanceInterrupt => self.set_maintenance(low_word(value)),
            Attribute::Control(control::INIT) => {
                self.interrupts.get_or_insert(DEFAULT_INTERRUPTS);
                self.initialised = Initialised::Yes;
                Ok(())
            }
            Attribute::Control(control::SAVE_PENDING_TABLES) => match self.initialised {
                Initialised::Yes => Ok(()),
                Initialised::No => Err(Errno::NoRegister),
            },
            Attribute::Address(_) | Attribute::Control(_) | Attribute::Its { .. } => {
                Err(Errno::NoRegister)
            }
            _ => self.set_register(attribute, low_word(value)),
        }
    }

    /// One more region, of `count` redistributors or of as many as there are vCPUs.
    fn add_region(&mut self, base: u64, count: Option<u16>, index: u8) -> Result<(), Errno> {
        let around = self.surroundings();
        let mut regions = self.regions.clone();
        regions.add(base, count, index, &around)?;
        regions.place(around.cpus, &around)?;
        self.regions = regions;
        Ok(())
    }

    fn set_interrupt_count(&mut self, count: u32) -> Result<(), Errno> {
        let valid = u16::try_from(count).ok().filter(|count| {
            (2 * PRIVATE..=MOST_INTERRUPTS).contains(count) && count.is_multiple_of(PRIVATE)
        });
        let count = valid.ok_or(Errno::Invalid)?;
        if self.interrupts.is_some() {
            return Err(Errno::Busy);
        }
        self.interrupts = Some(count);
        Ok(())
    }

    fn set_maintenance(&mut self, intid: u32) -> Result<(), Errno> {
        let intid = IntId::new(intid);
        if self.initialised == Initialised::Yes {
            return Err(Errno::Busy);
        }
        if intid.class() != IntIdClass::Ppi {
            return Err(Errno::Invalid);
        }
        self.maintenance = Some(intid);
        Ok(())
    }

    fn set_register(&mut self, attribute: Attribute, word: u32) -> Result<(), Errno> {
        self.check_cpu(attribute)?;
        match attribute {
            Attribute::Distributor { offset } if offset == gicd::IIDR.offset() => {
                self.iidr = revision::IIDR.with_revision(revision::written(word)?);
                Ok(())
            }
            // Nothing of it can be chosen: there are no virtual SGIs.
            Attribute::Distributor { offset } if offset == gicd::TYPER2.offset() && word == 0 => {
                Ok(())
            }
            Attribute::Distributor { offset } if offset == gicd::TYPER2.offset() => {
                Err(Errno::Invalid)
            }
            _ => Err(Errno::Busy),
        }
    }

    fn set_its(&mut self, index: usize, attribute: Attribute, value: u64) -> Result<(), Errno> {
        let base = *self.its.get(index).ok_or(Errno::NoDevice)?;
        match attribute {
            Attribute::Address(frame::ITS) => {
                self.check_address(base, value, gits::SIZE)?;
                self.its[index] = Some(value);
                Ok(())
            }
            Attribute::Address(_) => Err(Errno::NoDevice),
            // There is nothing to reset, to save or to restore: no table is valid.
            Attribute::Control(_) => Ok(()),
            Attribute::Its { offset } => Err(self.its_register(index, offset)),
            _ => Err(Errno::NoRegister),
        }
    }

    /// The error of an access to an ITS's register.
    fn its_register(&self, index: usize, offset: u64) -> Errno {
        match (its::check_offset(offset), self.its.get(index)) {
            (Err(errno), _) => errno,
            (Ok(()), Some(Some(_))) => Errno::Busy,
            (Ok(()), _) => Errno::NoRegister,
        }
    }

    /// `KVM_GET_DEVICE_ATTR`. A frame without an address is [`NOWHERE`](frame::NOWHERE). Of the
    /// regions of redistributors, this is the first one; [`region`](Self::region) gives any.
    ///
    /// # Errors
    /// As KVM's.
    pub fn get(&self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        match device {
            KvmDevice::Gic => self.get_gic(attribute),
            KvmDevice::Its(index) => {
                let base = self.its.get(index).ok_or(Errno::NoDevice)?;
                match attribute {
                    Attribute::Address(frame::ITS) => Ok(base.unwrap_or(frame::NOWHERE)),
                    Attribute::Address(_) => Err(Errno::NoDevice),
                    Attribute::Its { offset } => Err(self.its_register(index, offset)),
                    _ => Err(Errno::NoRegister),
                }
            }
        }
    }

    fn get_gic(&self, attribute: Attribute) -> Result<u64, Errno> {
        match attribute {
            Attribute::Address(frame::DISTRIBUTOR) => {
                Ok(self.distributor.unwrap_or(frame::NOWHERE))
            }
            Attribute::Address(frame::REDISTRIBUTORS) => Ok(self.regions.first()),
            Attribute::Address(frame::REDISTRIBUTOR_REGION) => self.region(0),
            Attribute::InterruptCount => Ok(self.interrupts.unwrap_or(PRIVATE).into()),
            Attribute::MaintenanceInterrupt => {
                Ok(self.maintenance.map_or(0, |intid| intid.get().into()))
            }
            Attribute::Address(_) | Attribute::Control(_) | Attribute::Its { .. } => {
                Err(Errno::NoRegister)
            }
            _ => {
                self.check_cpu(attribute)?;
                match attribute {
                    Attribute::Distributor { offset } if offset == gicd::IIDR.offset() => {
                        Ok(self.iidr.into_bits().into())
                    }
                    Attribute::Distributor { offset } if offset == gicd::TYPER2.offset() => Ok(0),
                    _ => Err(Errno::Busy),
                }
            }
        }
    }

    /// `KVM_GET_DEVICE_ATTR` of a region of redistributors, by its number: a
    /// [`RedistributorRegion`].
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn region(&self, index: u8) -> Result<u64, Errno> {
        self.regions.get(index).ok_or(Errno::NoEntry)
    }

    /// `KVM_HAS_DEVICE_ATTR`.
    ///
    /// # Errors
    /// As KVM's, for what there is not.
    pub fn has(&self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno> {
        match device {
            KvmDevice::Its(index) if index >= self.its.len() => Err(Errno::NoDevice),
            KvmDevice::Its(_) => attributes::its_has(attribute),
            KvmDevice::Gic => {
                if !matches!(attribute, Attribute::Levels { .. }) {
                    self.check_cpu(attribute)?;
                }
                attributes::gic_has(attribute, self.interrupts.unwrap_or(PRIVATE).into())
            }
        }
    }

    /// By which PPI the virtual interface of a guest that is a hypervisor asks for maintenance, if
    /// it was said. The model has no such guests: this is for the monitor.
    pub fn maintenance_interrupt(&self) -> Option<IntId> {
        self.maintenance
    }

    /// The first `KVM_RUN`: the machine that was created. Without an ITS, it has no LPIs. (A
    /// machine that KVM refuses to run is dead; this one can still be completed.)
    ///
    /// # Errors
    /// What is missing or cannot be, as KVM finds it then.
    pub fn config(&self) -> Result<VgicConfig, KvmIncomplete> {
        if let Some(cpu) = self.cpus.get(self.regions.placed()) {
            return Err(KvmIncomplete::NoRedistributor(cpu.affinity));
        }
        let distributor = self.distributor.ok_or(KvmIncomplete::NoDistributor)?;
        if !self.regions.are_apart(&self.surroundings()) {
            return Err(KvmIncomplete::Overlap);
        }
        let (Initialised::Yes, Some(interrupts)) = (self.initialised, self.interrupts) else {
            return Err(KvmIncomplete::NotInitialised);
        };
        let its = (0..).zip(&self.its).map(|(index, base)| {
            base.map(kvm_its_config).ok_or(KvmIncomplete::NoItsAddress(KvmDevice::Its(index)))
        });
        let its = its.collect::<Result<Vec<_>, _>>()?;
        let config = kvm_config(0, interrupts.into())
            .with_cpus(self.cpus.clone())
            .with_distributor(distributor)
            .with_redistributors(self.regions.config(self.cpus.len()))
            .with_lpi_id_bits(if its.is_empty() { None } else { Some(16) })
            .with_its(its);
        // Of what can be set, every revision is one.
        let config = revision::at_revision(config.clone(), self.iidr).unwrap_or(config);
        config.validate()?;
        Ok(config)
    }

    /// The vCPU of a register's attribute; of the distributor's, the first.
    fn check_cpu(&self, attribute: Attribute) -> Result<(), Errno> {
        let known = match attribute {
            Attribute::Distributor { .. } => !self.cpus.is_empty(),
            Attribute::Redistributor { cpu, .. }
            | Attribute::SystemRegister { cpu, .. }
            | Attribute::Levels { cpu, .. } => self.cpus.iter().any(|known| known.affinity == cpu),
            _ => true,
        };
        if known { Ok(()) } else { Err(Errno::Invalid) }
    }

    /// Can a frame have this address, and has it none yet?
    fn check_address(&self, before: Option<u64>, base: u64, bytes: u64) -> Result<(), Errno> {
        match before {
            Some(_) => Err(Errno::Exists),
            None => self.surroundings().check_place(base, bytes),
        }
    }

    fn surroundings(&self) -> Surroundings {
        let Self { ref cpus, distributor, address_bits, .. } = *self;
        Surroundings { cpus: cpus.len(), distributor, address_bits }
    }
}
