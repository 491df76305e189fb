//! Executes ITS commands.

use super::effect::{Effect, apply};
use super::interpreter::Interpreter;
use super::memory::{DeviceEntry, Memory, TranslationEntry};
use super::redistributor::FakeRedistributor;
use gic_arch::its::{Command, MapAction};

/// State for executing one command. The methods return `None` for a command error.
pub(crate) struct Execution<'a> {
    pub(crate) its: &'a mut Interpreter,
    pub(crate) memory: &'a mut Memory,
    pub(crate) redistributors: &'a mut [FakeRedistributor],
}

impl Execution<'_> {
    pub(crate) fn run(&mut self, command: Command) -> Option<()> {
        match command {
            Command::Mapd { device, itt, event_bits_minus_one, action } => {
                self.mapd(device.get(), itt, event_bits_minus_one, action)
            }
            Command::Mapc { collection, target, action } => {
                self.mapc(collection.get(), target.field(), action)
            }
            Command::Mapti { device, event, intid, collection } => {
                let entry = self.its.event_entry(self.memory, device.get(), event.get())?;
                let lpi =
                    intid.checked_sub(8192).is_some_and(|index| index < self.its.hardware.lpis);
                lpi.then_some(())?;
                let old = self.memory.device_read64(self.its.table_view(), entry);
                self.check_discarded(entry);
                assert_eq!(
                    old, 0,
                    "MAPTI of an event that is already mapped, or a dirty translation table"
                );
                let new =
                    TranslationEntry::new().with_intid(intid).with_collection(collection.get());
                self.memory.device_write64(entry, new.into());
                Some(())
            }
            Command::Mapi { .. } => panic!("this driver only maps with MAPTI"),
            Command::Movi { device, event, collection } => {
                let (entry, lpi, from) = self.mapped(device.get(), event.get())?;
                let to = self.its.collection(self.memory, collection.get())?;
                let new = TranslationEntry::new().with_intid(lpi).with_collection(collection.get());
                self.memory.device_write64(entry, new.into());
                self.defer(from, Effect::MoveTo(lpi, to));
                Some(())
            }
            Command::Discard { device, event } => {
                let (entry, lpi, target) = self.mapped(device.get(), event.get())?;
                self.memory.device_write64(entry, 0);
                self.its.discarding.push((target, entry));
                self.defer(target, Effect::Clear(lpi));
                Some(())
            }
            Command::Int { device, event } => self.at_event(device.get(), event.get(), Effect::Set),
            Command::Clear { device, event } => {
                self.at_event(device.get(), event.get(), Effect::Clear)
            }
            Command::Inv { device, event } => {
                self.at_event(device.get(), event.get(), Effect::Reload)
            }
            Command::Invall { collection } => {
                let target = self.its.collection(self.memory, collection.get())?;
                self.defer(target, Effect::ReloadAll);
                Some(())
            }
            Command::Movall { from, to } => {
                (self.knows(from.field()) && self.knows(to.field())).then_some(())?;
                self.defer(from.field(), Effect::MoveAllTo(to.field()));
                Some(())
            }
            Command::Sync { target } => self.sync(target.field()),
        }
    }

    fn mapd(&mut self, device: u32, itt: u64, bits_minus_one: u8, action: MapAction) -> Option<()> {
        let entry = self.its.entry(self.memory, 0, device)?;
        (u64::from(device) >> self.its.hardware.typer.device_id_bits() == 0).then_some(())?;
        if action == MapAction::Unmap {
            if let Some((table, bytes)) = self.its.mapped.remove(&device) {
                let left = self.memory.device_read(
                    self.its.table_view(),
                    table,
                    usize::try_from(bytes).unwrap(),
                );
                assert!(
                    left.iter().all(|byte| *byte == 0),
                    "device {device:#x} is unmapped before its events"
                );
            }
            self.memory.device_write64(entry, 0);
            return Some(());
        }
        (bits_minus_one < self.its.hardware.typer.event_id_bits()).then_some(())?;
        assert!(!self.its.mapped.contains_key(&device), "device {device:#x} is already mapped");
        assert_eq!(itt % 256, 0, "a translation table must be aligned to 256 bytes");
        let bytes = u64::from(self.its.hardware.typer.itt_entry_bytes()) << (bits_minus_one + 1);
        let table =
            self.memory.device_read(self.its.table_view(), itt, usize::try_from(bytes).unwrap());
        assert!(table.iter().all(|byte| *byte == 0), "a translation table must be zero");
        for (other, (start, length)) in &self.its.mapped {
            assert!(
                itt + bytes <= *start || start + length <= itt,
                "the translation table overlaps that of device {other:#x}"
            );
        }
        self.its.mapped.insert(device, (itt, bytes));
        let value = DeviceEntry::new().with_valid(true).with_itt_address(itt);
        self.memory.device_write64(entry, value.with_event_bits_minus_one(bits_minus_one).into());
        Some(())
    }

    fn mapc(&mut self, collection: u16, target: u64, action: MapAction) -> Option<()> {
        if action == MapAction::Map {
            self.knows(target).then_some(())?;
        }
        if u32::from(collection) < u32::from(self.its.hardware.typer.hcc()) {
            match action {
                MapAction::Map => self.its.own_collections.insert(collection, target),
                MapAction::Unmap => self.its.own_collections.remove(&collection),
            };
            return Some(());
        }
        let entry = self.its.entry(self.memory, 3, collection.into())?;
        let value = if action == MapAction::Map { 1 << 63 | target } else { 0 };
        self.memory.device_write64(entry, value);
        Some(())
    }

    /// Returns the address of an event's entry, its LPI and its redistributor.
    pub(super) fn mapped(&mut self, device: u32, event: u32) -> Option<(u64, u32, u64)> {
        let place = self.its.event_entry(self.memory, device, event)?;
        let entry = TranslationEntry::from(self.memory.device_read64(self.its.table_view(), place));
        (entry.intid() != 0).then_some(())?;
        let target = self.its.target(self.memory, entry)?;
        Some((place, entry.intid(), target))
    }

    fn at_event(&mut self, device: u32, event: u32, effect: fn(u32) -> Effect) -> Option<()> {
        let (_, lpi, target) = self.mapped(device, event)?;
        self.defer(target, effect(lpi));
        Some(())
    }

    pub(super) fn knows(&self, target: u64) -> bool {
        assert!(
            target < self.its.hardware.reach,
            "a command targets a redistributor that hangs the ITS"
        );
        self.redistributors.iter().any(|rd| rd.target == target)
    }

    /// Asserts that an event that is about to be mapped has left its last redistributor or vPE.
    pub(super) fn check_discarded(&self, entry: u64) {
        let is_left = self.its.discarding.iter().any(|(_, discarded)| *discarded == entry);
        assert!(!is_left, "an event is mapped before its DISCARD has taken effect");
    }

    pub(super) fn defer(&mut self, target: u64, effect: Effect) {
        self.its.deferred.push((target, effect));
    }

    fn sync(&mut self, target: u64) -> Option<()> {
        self.knows(target).then_some(())?;
        for effect in self.take_deferred(target) {
            let mut all: Vec<_> = self.redistributors.iter_mut().collect();
            apply(&mut all, self.memory, target, effect);
        }
        Some(())
    }

    /// Takes the effects at a redistributor or vPE.
    pub(super) fn take_deferred(&mut self, target: u64) -> Vec<Effect> {
        self.its.discarding.retain(|(at, _)| *at != target);
        let (now, later): (Vec<_>, _) =
            std::mem::take(&mut self.its.deferred).into_iter().partition(|(at, _)| *at == target);
        self.its.deferred = later;
        now.into_iter().map(|(_, effect)| effect).collect()
    }
}
