//! The routes and the isolation of PCI hosts, bridges and devices.

use super::difference::Section;
use super::object::Object;
use super::objects::Side;
use super::spans::{Span, Target};
use gic_firmware::{
    ControllerKind, IommuRouting, MsiRouting, PciHost, PlatformDevice, Role, RouteSpan,
};

impl Side<'_> {
    /// Returns the requesters and buses of requesters, with their routes or their isolation.
    pub(super) fn requesters(&self, section: Section) -> Vec<Object<'_>> {
        let mut requesters = Vec::new();
        for host in &self.description.hosts {
            requesters.push(self.host(host, section));
            for bridge in &host.bridges {
                let mut object = Object::of_node("bridge", &bridge.id, None);
                if section == Section::Routes {
                    object.add("status", [bridge.status.value]);
                    add_mask(&mut object, &bridge.msi);
                    object.map = self.routes(self.description.bridge_spans(bridge));
                }
                requesters.push(object);
            }
        }
        let devices = self.description.devices.iter().map(|one| self.device(one, section));
        requesters.extend(devices);
        requesters
    }

    fn host(&self, host: &PciHost, section: Section) -> Object<'_> {
        let base = host.config.as_ref().map(|config| config.region().base());
        let mut object = Object::of_node("host", &host.id, base);
        let buses = host.buses.value;
        object.buses = Some(u64::from(buses.first) << 8..(u64::from(buses.last) + 1) << 8);
        let routes = self.description.host_spans(host);
        if section == Section::Isolation {
            let mask = host.iommu.mask.as_ref();
            object.add("iommu-map-mask", mask.map(|mask| format!("{:#x}", mask.value)));
            self.add_isolation(&mut object, routes);
            object.map = self.streams(&host.iommu);
            return object;
        }
        object.add("status", [host.status.value]);
        object.add("buses", [format!("{:#04x} to {:#04x}", buses.first, buses.last)]);
        let config = host.config.as_ref().map(|config| self.region(&config.region()));
        object.add("configuration space", config);
        if self.is_same_form {
            object.add("segment", host.segment.as_ref().map(|segment| segment.value));
        }
        // Tables state these windows in AML.
        for window in host.dma_windows.iter().filter(|_| self.is_same_form) {
            let (bus, cpu) = (window.bus_base(), self.region(&window.cpu()));
            let moved = format!("{cpu} at bus address {bus:#x}");
            let text = if bus == window.cpu().base() { cpu } else { moved };
            object.add(window.origin.item(), [text]);
        }
        add_mask(&mut object, &host.msi);
        object.map = self.routes(routes);
        object
    }

    fn device(&self, device: &PlatformDevice, section: Section) -> Object<'_> {
        let address = device.registers.first().map(|region| region.base());
        let mut object = Object::of_node("device", &device.id, address);
        let routes = self.description.device_spans(device);
        let messages = match device.role {
            Role::Bus => Vec::new(),
            Role::Device => self.routes(routes.iter().copied()),
        };
        let messages = messages.iter().map(|Span { target: Target { name, base }, .. }| {
            base.map_or_else(|| (*name).to_owned(), |base| format!("DeviceID {base:#x} at {name}"))
        });
        let messages: Vec<String> = messages.collect();
        if !self.is_same_form {
            // Devices have unrelated names in the two forms, but their messages are the same.
            object.keys.extend(messages.iter().map(|one| format!("messages {one}")));
        }
        if section == Section::Isolation {
            self.add_isolation(&mut object, routes.into_iter());
            let iommus = device.iommus.iter().filter_map(|passed| {
                let name = self.iommu(passed.iommu)?;
                let cells = passed.specifier.iter().map(|cell| format!(" {cell:#x}"));
                let cells: String = cells.collect();
                let stream = if cells.is_empty() { cells } else { format!("StreamID{cells} at ") };
                Some(format!("{stream}{name}"))
            });
            object.add("IOMMU", iommus);
            object.map = self.streams(&device.iommu);
            return object;
        }
        object.add("status", [device.status.value]);
        object.add("messages", &messages);
        if device.role == Role::Bus {
            add_mask(&mut object, &device.msi);
            object.map = self.routes(routes.into_iter());
        }
        object
    }

    /// Adds whether the requester's controllers identify devices by an ID that devices cannot
    /// choose.
    fn add_isolation(&self, object: &mut Object<'_>, routes: impl Iterator<Item = RouteSpan>) {
        let isolates = |span: RouteSpan| {
            let controller = self.description.controller(span.controller);
            controller.is_some_and(|one| one.kind == ControllerKind::Its && one.pre_its.is_none())
        };
        let mut routes = routes.peekable();
        let text = if routes.peek().is_none() {
            "no controller"
        } else if routes.all(isolates) {
            "isolated by DeviceID"
        } else {
            "not isolated"
        };
        object.add("messages", [text]);
    }

    fn routes(&self, spans: impl Iterator<Item = RouteSpan>) -> Vec<Span<'_>> {
        let span = |span: RouteSpan| {
            let needs_id = self.description.controller(span.controller)?.kind.needs_device_id();
            let (name, base) = (self.controller(span.controller)?, span.device_id_base.get());
            let base = needs_id.then(|| u64::from(base));
            Some(Span::new(span.rid_base.get(), span.length, Target { name, base }))
        };
        spans.filter_map(span).collect()
    }

    fn streams(&self, routing: &IommuRouting) -> Vec<Span<'_>> {
        let spans = routing.map.iter().filter_map(|entry| {
            let (name, base) = (self.iommu(entry.iommu?)?, entry.stream_id_base.map(u64::from));
            Some(Span::new(entry.rid_base.get(), entry.length, Target { name, base }))
        });
        spans.collect()
    }
}

fn add_mask(object: &mut Object<'_>, msi: &MsiRouting) {
    let mask = msi.mask.as_ref();
    object.add("msi-map-mask", mask.map(|mask| format!("{:#x}", mask.value)));
}
