use gic_firmware::devicetree;
use msi_types::RequesterId;

/// Lists the faults of a board's devicetree, and the controller that the function 01:00.0 behind
/// each of its host bridges rings.
pub fn report(blob: &[u8]) -> Result<Vec<String>, devicetree::DtbError> {
    let machine = devicetree::parse(blob)?;
    let findings = machine.findings.iter().map(ToString::to_string);
    let routes =
        machine.hosts.iter().map(|host| match machine.route(host, RequesterId::pci(1, 0, 0)) {
            Ok(route) => format!(
                "{}: 01:00.0 rings with DeviceID {} by {}",
                host.id, route.device_id, route.via
            ),
            Err(reason) => format!("{}: 01:00.0 rings nowhere: {reason}", host.id),
        });
    Ok(findings.chain(routes).collect())
}
