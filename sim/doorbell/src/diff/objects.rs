//! The objects of a description, with their facts.

use super::difference::Section;
use super::object::{self, Object};
use doorbell_inspection::coherence;
use doorbell_inspection::lint::place::without_addresses;
use gic_firmware::{
    Controller, ControllerIndex, CpuNode, Description, Fact, Gic, GicVersion, Iommu, IommuIndex,
    NodeId, Region, SecondaryGic, WiredUser,
};

/// One of the two descriptions.
#[derive(Debug)]
pub(super) struct Side<'s> {
    pub(super) description: &'s Description,
    /// `true` if both descriptions have the same form: devicetree or tables.
    pub(super) is_same_form: bool,
    controllers: Vec<String>,
    iommus: Vec<String>,
}

impl<'s> Side<'s> {
    pub(super) fn new(description: &'s Description, is_same_form: bool) -> Self {
        let controllers = description.controllers.iter().map(|one| one.id.to_string()).collect();
        let iommus = description.iommus.iter().map(|one| one.id.to_string()).collect();
        Self { description, is_same_form, controllers, iommus }
    }

    /// Makes routes name controllers and IOMMUs as the other description names their counterparts,
    /// so that a route to a moved controller is not a difference.
    pub(super) fn adopt_names(&mut self, other: &Self) {
        self.controllers = self.names_in(other, Section::Controllers, &self.controllers);
        self.iommus = self.names_in(other, Section::Iommus, &self.iommus);
    }

    fn names_in(&self, other: &Self, section: Section, own: &[String]) -> Vec<String> {
        let (here, there) = (self.objects(section), other.objects(section));
        // The pairs begin with the objects of this description, in order.
        let pairs = object::pairs(&here, &there).into_iter();
        let names = own.iter().zip(pairs).map(|(own, (_, counterpart))| {
            counterpart.map_or_else(|| own.clone(), |other| other.node.clone())
        });
        names.collect()
    }

    /// Returns the name of a controller.
    pub(super) fn controller(&self, index: ControllerIndex) -> Option<&str> {
        self.controllers.get(index.get()).map(String::as_str)
    }

    /// Returns the name of an IOMMU.
    pub(super) fn iommu(&self, index: IommuIndex) -> Option<&str> {
        self.iommus.get(index.get()).map(String::as_str)
    }

    /// Returns the objects of a section. Facts that exist in only one form are omitted unless both
    /// descriptions have the same form.
    pub(super) fn objects(&self, section: Section) -> Vec<Object<'_>> {
        let of = self.description;
        match section {
            Section::Machine if self.is_same_form => vec![machine(of)],
            Section::Cpus => of.cpus.iter().map(cpu).collect(),
            Section::Gics => {
                let root = of.gic.iter().map(|gic| self.gic(gic, "root"));
                root.chain(of.secondary_gics.iter().map(|one| self.secondary_gic(one))).collect()
            }
            Section::Controllers => of.controllers.iter().map(|it| self.a_controller(it)).collect(),
            Section::Iommus => of.iommus.iter().map(|one| self.an_iommu(one)).collect(),
            Section::Wires if self.is_same_form => of.wired.iter().map(wired).collect(),
            Section::Routes | Section::Isolation => self.requesters(section),
            Section::Machine | Section::Wires | Section::Findings => Vec::new(),
        }
    }

    fn secondary_gic(&self, secondary: &SecondaryGic) -> Object<'_> {
        let mut object = self.gic(&secondary.gic, "secondary");
        let interrupt = secondary.parent.as_ref().map(|parent| {
            let intid = parent.intid.map(|intid| format!("{intid} of ")).unwrap_or_default();
            format!("{intid}{}", parent.controller)
        });
        object.add("interrupt at its parent", interrupt);
        object
    }

    fn gic(&self, gic: &Gic, kind: &str) -> Object<'_> {
        let mut object = Object::of_node(kind, &gic.id, Some(gic.distributor.base()));
        object.keys.push(kind.to_owned());
        // A devicetree does not distinguish GICv4 from GICv3.
        let version = match gic.version.value {
            GicVersion::V4 if !self.is_same_form => GicVersion::V3,
            version => version,
        };
        object.add("version", [version]);
        object.add("status", [gic.status.value]);
        object.add("distributor", [self.region(&gic.distributor)]);
        if self.is_same_form {
            object.add("redistributors", gic.redistributors.iter().map(|one| self.region(one)));
            let stride = gic.redistributor_stride.as_ref();
            object.add("redistributor stride", stride.map(|one| format!("{:#x}", one.value)));
            object.add("CPU interface", gic.cpu_interface.as_ref().map(|one| self.region(one)));
            object.add("coherence", [coherence(gic.coherence.value)]);
            object.add("quirk", gic.broken_save_restore.then_some("broken save and restore"));
        }
        object
    }

    fn a_controller(&self, controller: &Controller) -> Object<'_> {
        let address = controller.registers.as_ref().map(|region| region.base());
        let mut object = Object::of_node(controller.kind.as_str(), &controller.id, address);
        object.name = format!("{} ({})", controller.id, controller.kind);
        object.add("status", [controller.status.value]);
        object.add("registers", controller.registers.as_ref().map(|one| self.region(one)));
        for range in &controller.ranges {
            let stated = range.origin.item();
            let field = if stated.is_empty() || !self.is_same_form { "INTIDs" } else { stated };
            object.add(field, [format!("{}+{}", range.first().get(), range.count())]);
        }
        let lines = controller.lines.iter();
        object.add("line", lines.map(|line| format!("INTID {}", line.intid.get())));
        let message = controller.message.as_ref().map(|message| {
            format!("{:#x}, data {} for the first INTID", message.address, message.data)
        });
        object.add("message", message);
        object.add("pre-ITS window", controller.pre_its.as_ref().map(|one| self.region(one)));
        if self.is_same_form {
            object.add("coherence", [coherence(controller.coherence.value)]);
            object.add("#msi-cells", [controller.msi_cells.value]);
            object.add("GIC", &controller.secondary_gic);
        }
        object
    }

    fn an_iommu(&self, iommu: &Iommu) -> Object<'_> {
        let base = |one: &Fact<Region>| one.base();
        let mut object = Object::of_node("iommu", &iommu.id, iommu.registers.as_ref().map(base));
        object.add("status", [iommu.status.value]);
        object.add("registers", iommu.registers.as_ref().map(|one| self.region(one)));
        object.add("compatible", iommu.compatible.iter().filter(|_| self.is_same_form));
        object
    }

    /// Returns a region as text. Devicetree and ACPI state sizes differently, so sizes are compared
    /// only within one form.
    pub(super) fn region(&self, region: &Region) -> String {
        if self.is_same_form {
            format!("{:#x}+{:#x}", region.base(), region.size())
        } else {
            format!("{:#x}", region.base())
        }
    }
}

impl Object<'_> {
    /// Creates the object of a node, whose counterpart is found by its path, by its address, and by
    /// its path without addresses. `kind` must be the same for counterparts.
    pub(super) fn of_node(kind: &str, id: &NodeId, address: Option<u64>) -> Self {
        let key = |of: &str| format!("{kind} {of}");
        let by_address = address.map_or_else(|| key(id.as_str()), |at| key(&format!("{at:#x}")));
        Self::new(id, [key(id.as_str()), by_address, key(&without_addresses(id.as_str()))])
    }
}

fn machine(description: &Description) -> Object<'_> {
    let mut object = Object::new(&"the machine", ["machine".to_owned()]);
    object.add("model", description.model.as_ref().map(|model| &model.value));
    object.add("compatible", &description.compatible);
    object.add("OEM ID", &description.oem_id);
    object
}

fn cpu(cpu: &CpuNode) -> Object<'_> {
    let affinity = cpu.affinity.value;
    let mut object = Object::new(&format!("CPU {affinity}"), [affinity.to_string()]);
    object.add("status", [cpu.status.value]);
    object
}

fn wired(user: &WiredUser) -> Object<'_> {
    let mut object = Object::of_node("wired", &user.id, None);
    object.add("status", [user.status.value]);
    object.add("interrupts", user.interrupts.iter().map(|intid| intid.value));
    object
}
