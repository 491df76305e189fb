//! Compares the machine, CPUs, GICs, controllers, IOMMUs and wired interrupts.

use super::difference::{Differences, Section};
use super::object::{self, Object};
use super::pairs::{Pair, labels, pair};
use super::sides::{Labels, Two};
use doorbell_inspection::coherence;
use doorbell_inspection::lint::place::without_addresses;
use gic_firmware::{
    Controller, CpuNode, Description, Fact, Gic, GicVersion, Iommu, NodeId, Region, SecondaryGic,
    WiredUser,
};

/// Labels of the objects to which others refer.
pub(super) struct AllLabels {
    pub(super) controllers: Labels,
    pub(super) iommus: Labels,
}

/// Compares the objects that do not refer to other objects.
pub(super) fn compare(two: Two<'_>, found: &mut Differences) -> AllLabels {
    let (old, new) = (&two.old.description, &two.new.description);
    let is_same_form = two.is_same_form();
    let mut section = |section, of: &dyn Fn(&Description) -> Vec<Object>| -> Vec<Pair> {
        let (old, new) = (of(old), of(new));
        let pairs = pair(&old, &new);
        for (one, other) in &pairs {
            let one = one.and_then(|index| old.get(index));
            let other = other.and_then(|index| new.get(index));
            object::compare(section, one, other, is_same_form, found);
        }
        pairs
    };
    if is_same_form {
        section(Section::Machine, &|of| vec![machine(of)]);
    }
    section(Section::Cpus, &|of| of.cpus.iter().map(cpu).collect());
    section(Section::Gics, &|of| gics(of, is_same_form));
    let controllers = section(Section::Controllers, &|of| {
        of.controllers.iter().map(|one| controller(one, is_same_form)).collect()
    });
    let iommus = section(Section::Iommus, &|of| {
        of.iommus.iter().map(|one| iommu(one, is_same_form)).collect()
    });
    if is_same_form {
        section(Section::Wires, &|of| of.wired.iter().map(wired).collect());
    }
    AllLabels {
        controllers: labels(&controllers, old.controllers.len(), new.controllers.len()),
        iommus: labels(&iommus, old.iommus.len(), new.iommus.len()),
    }
}

/// Returns the keys of a node: its path, its address, and its path without addresses. `kind` must
/// be the same for counterparts.
pub(super) fn keys(kind: &str, id: &NodeId, address: Option<u64>) -> Vec<String> {
    let by_address = address.map_or_else(|| format!("{kind} {id}"), |at| format!("{kind} {at:#x}"));
    vec![format!("{kind} {id}"), by_address, format!("{kind} {}", without_addresses(id.as_str()))]
}

/// Returns a region as text. Devicetree and ACPI state sizes differently, so sizes are compared
/// only within one form.
pub(super) fn region(region: Region, has_size: bool) -> String {
    if has_size {
        format!("{:#x}+{:#x}", region.base(), region.size())
    } else {
        format!("{:#x}", region.base())
    }
}

fn machine(description: &Description) -> Object {
    let mut object = Object::new(&"the machine", ["machine".to_owned()]);
    if let Some(model) = &description.model {
        object.add(Section::Machine, "model", &model.value);
    }
    for name in &description.compatible {
        object.add(Section::Machine, "compatible", &name);
    }
    if let Some(oem) = &description.oem_id {
        object.add(Section::Machine, "OEM ID", &oem);
    }
    object
}

fn cpu(cpu: &CpuNode) -> Object {
    let affinity = cpu.affinity.value;
    let mut object = Object::new(&format!("CPU {affinity}"), [affinity.to_string()]);
    object.add(Section::Cpus, "status", &cpu.status.value);
    object
}

fn gics(description: &Description, is_same_form: bool) -> Vec<Object> {
    let root = description.gic.iter().map(|one| gic(one, "root", is_same_form));
    let others = description.secondary_gics.iter().map(|one| secondary_gic(one, is_same_form));
    root.chain(others).collect()
}

fn secondary_gic(secondary: &SecondaryGic, is_same_form: bool) -> Object {
    let mut object = gic(&secondary.gic, "secondary", is_same_form);
    if let Some(parent) = &secondary.parent {
        let text = match parent.intid {
            Some(intid) => format!("{intid} of {}", parent.controller),
            None => parent.controller.to_string(),
        };
        object.add(Section::Gics, "interrupt at its parent", &text);
    }
    object
}

fn gic(gic: &Gic, kind: &str, is_same_form: bool) -> Object {
    const SECTION: Section = Section::Gics;
    let mut keys = keys(kind, &gic.id, Some(gic.distributor.base()));
    keys.push(kind.to_owned());
    let mut object = Object::new(&gic.id, keys);
    // A devicetree does not distinguish GICv4 from GICv3.
    let version = match gic.version.value {
        GicVersion::V4 if !is_same_form => GicVersion::V3,
        version => version,
    };
    object.add(SECTION, "version", &version);
    object.add(SECTION, "status", &gic.status.value);
    object.add(SECTION, "distributor", &region(gic.distributor.value, is_same_form));
    if is_same_form {
        for one in &gic.redistributors {
            object.add(SECTION, "redistributors", &region(one.value, true));
        }
        if let Some(stride) = &gic.redistributor_stride {
            object.add(SECTION, "redistributor stride", &format!("{:#x}", stride.value));
        }
        if let Some(one) = &gic.cpu_interface {
            object.add(SECTION, "CPU interface", &region(one.value, true));
        }
        object.add(SECTION, "coherence", &coherence(gic.coherence.value));
        if gic.broken_save_restore {
            object.add(SECTION, "quirk", &"broken save and restore");
        }
    }
    object
}

fn controller(controller: &Controller, is_same_form: bool) -> Object {
    const SECTION: Section = Section::Controllers;
    let address = controller.registers.as_ref().map(|region| region.base());
    let keys = keys(controller.kind.as_str(), &controller.id, address);
    let mut object = Object::new(&format!("{} ({})", controller.id, controller.kind), keys);
    object.add(SECTION, "status", &controller.status.value);
    if let Some(one) = &controller.registers {
        object.add(SECTION, "registers", &region(one.value, is_same_form));
    }
    for range in &controller.ranges {
        let stated = range.origin.item();
        let field = if stated.is_empty() || !is_same_form { "INTIDs" } else { stated };
        object.add(SECTION, field, &format!("{}+{}", range.first().get(), range.count()));
    }
    for line in &controller.lines {
        object.add(SECTION, "line", &format!("INTID {}", line.intid.get()));
    }
    if let Some(message) = &controller.message {
        let text = format!("{:#x}, data {} for the first INTID", message.address, message.data);
        object.add(SECTION, "message", &text);
    }
    if let Some(window) = &controller.pre_its {
        object.add(SECTION, "pre-ITS window", &region(window.value, is_same_form));
    }
    if is_same_form {
        object.add(SECTION, "coherence", &coherence(controller.coherence.value));
        object.add(SECTION, "#msi-cells", &controller.msi_cells.value);
        if let Some(gic) = &controller.secondary_gic {
            object.add(SECTION, "GIC", &gic);
        }
    }
    object
}

fn iommu(iommu: &Iommu, is_same_form: bool) -> Object {
    let base = |one: &Fact<Region>| one.base();
    let keys = keys("iommu", &iommu.id, iommu.registers.as_ref().map(base));
    let mut object = Object::new(&iommu.id, keys);
    object.add(Section::Iommus, "status", &iommu.status.value);
    if let Some(one) = &iommu.registers {
        object.add(Section::Iommus, "registers", &region(one.value, is_same_form));
    }
    if is_same_form {
        for name in &iommu.compatible {
            object.add(Section::Iommus, "compatible", &name);
        }
    }
    object
}

fn wired(user: &WiredUser) -> Object {
    let mut object = Object::new(&user.id, keys("wired", &user.id, None));
    object.add(Section::Wires, "status", &user.status.value);
    for intid in &user.interrupts {
        object.add(Section::Wires, "interrupts", &intid.value);
    }
    object
}
