//! The permitted dependencies between packages, i.e. the design's layout table as data.

use doorbell_harness::workspace::Package;

/// All libraries, for packages that may use any of them.
const LIBRARIES: &[&str] = &[
    "msi-types",
    "gic-arch",
    "irq-domain",
    "gic-driver",
    "x86-irq",
    "vgic",
    "vgic-kvm",
    "irq-routing",
    "vgic-monitor",
    "hyperv-vpci",
    "gic-firmware",
    "gic-bringup",
    "doorbell-fallible",
    "doorbell-test-support",
];

/// Returns the libraries that may be published. They must build without an operating system.
pub(crate) fn libraries() -> impl Iterator<Item = &'static str> {
    LIBRARIES.iter().copied().filter(|name| *name != "doorbell-test-support")
}

/// Returns `true` if the package is a library that may be published.
pub(crate) fn is_library(name: &str) -> bool {
    libraries().any(|library| library == name)
}

/// The package for fallible allocation, and the heap that makes allocations fail in tests.
const ALLOCATION: &[&str] = &["doorbell-fallible", "doorbell-test-support"];

/// The simulated machine on which drivers are tested.
const MODEL: &[&str] = &["doorbell-hardware", "vgic"];

/// Packages that an image may use: every library, the images' shared runtime, and the facts that
/// images report.
const IMAGES_USE: &[&str] = &[
    "doorbell-facts",
    "msi-types",
    "gic-arch",
    "irq-domain",
    "gic-driver",
    "vgic",
    "irq-routing",
    "gic-firmware",
    "gic-bringup",
    "image-rt",
    "smmu",
];

/// Packages whose results the command shows.
const COMMAND_USES: &[&str] = &["doorbell-machine", "doorbell-bench", "doorbell-inspection"];

/// Each package, with the packages of this workspace that it and its tests may use.
const ARROWS: &[(&str, &[&[&str]])] = &[
    ("msi-types", &[]),
    ("gic-arch", &[&["msi-types", "doorbell-test-support"]]),
    ("doorbell-test-support", &[&["msi-types", "gic-arch", "vgic"]]),
    ("doorbell-fallible", &[&["msi-types", "doorbell-test-support"]]),
    ("irq-domain", &[&["msi-types"], ALLOCATION]),
    ("gic-driver", &[&["msi-types", "gic-arch"], ALLOCATION]),
    ("x86-irq", &[&["msi-types"], ALLOCATION]),
    ("vgic", &[&["msi-types", "gic-arch"], ALLOCATION]),
    ("vgic-kvm", &[&["msi-types", "gic-arch", "vgic"], ALLOCATION]),
    ("irq-routing", &[&["msi-types", "doorbell-test-support"]]),
    ("vgic-monitor", &[&["msi-types", "gic-arch", "vgic", "vgic-kvm", "irq-routing"]]),
    ("hyperv-vpci", &[&["msi-types"], ALLOCATION]),
    ("gic-firmware", &[&["msi-types", "gic-arch"]]),
    (
        "gic-bringup",
        &[
            &["msi-types", "gic-arch", "irq-domain", "gic-driver", "gic-firmware"],
            ALLOCATION,
            MODEL,
        ],
    ),
    (
        "doorbell-hardware",
        &[&[
            "msi-types",
            "irq-domain",
            "irq-routing",
            "gic-driver",
            "x86-irq",
            "vgic",
            "hyperv-vpci",
            "gic-firmware",
        ]],
    ),
    ("doorbell-machine", &[LIBRARIES, &["doorbell-hardware"]]),
    ("doorbell-bench", &[LIBRARIES]),
    ("doorbell-inspection", &[&["gic-firmware"]]),
    ("doorbell-page", &[&["gic-firmware", "doorbell-inspection"]]),
    ("doorbell", &[COMMAND_USES, LIBRARIES]),
    ("image-rt", &[&["msi-types", "irq-domain", "gic-driver", "gic-firmware"]]),
    ("smmu", &[&["gic-driver", "image-rt"]]),
    ("testbench", &[IMAGES_USE]),
    ("alone", &[IMAGES_USE]),
    ("minimal", &[IMAGES_USE]),
    ("el2-cpu", &[&["gic-arch", "vgic"]]),
    ("one-vcpu", &[IMAGES_USE, &["el2-cpu"]]),
    ("el2-vm", &[IMAGES_USE, &["el2-cpu"]]),
    ("el2-passthrough", &[IMAGES_USE, &["el2-cpu", "el2-vm"]]),
    ("hypervisor", &[IMAGES_USE, &["el2-vm", "el2-passthrough"]]),
    ("microbench", &[IMAGES_USE]),
    ("newcomer", &[]),
    ("hostile", &[IMAGES_USE]),
    ("doorbell-soak", &[LIBRARIES]),
    ("doorbell-exhaustive", &[&["vgic", "doorbell-test-support"]]),
    ("doorbell-oracles", &[LIBRARIES]),
    ("kvm-judge", &[LIBRARIES, &["doorbell-facts"]]),
    ("doorbell-facts", &[]),
    ("doorbell-harness", &[&["doorbell-facts"]]),
    (
        "hypervisor-suite",
        &[
            &["doorbell-facts", "doorbell-harness"],
            // For the hypervisor's decoders, which are tested on the host.
            &["gic-arch", "vgic"],
        ],
    ),
    (
        "doorbell-suites",
        &[
            &["doorbell-facts", "doorbell-harness", "doorbell-oracles"],
            // The binding's examples judge the lint, too.
            &["doorbell-page", "doorbell-test-support", "gic-firmware"],
        ],
    ),
    ("xtask", &[&["doorbell-harness"]]),
];

/// Returns the dependencies that the table does not permit, or a finding if the table lacks the
/// package.
pub(crate) fn strays(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
        return vec![format!(
            "{name}: not in the layout table; add it to `ARROWS` with its dependencies"
        )];
    };
    // A package's tests may depend on the package itself in order to enable a feature.
    let local = package
        .dependencies
        .iter()
        .filter(|dependency| dependency.local && dependency.name != name);
    let stray = local.filter(|dependency| {
        !allowed.iter().any(|names| names.contains(&dependency.name.as_str()))
    });
    stray
        .map(|dependency| format!("{name}: may not use {} ({})", dependency.name, dependency.kind))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_harness::workspace::Dependency;

    fn package(name: &str, uses: &str) -> Package {
        let kind = "dev".into();
        Package::fake(name, vec![Dependency { name: uses.into(), kind, local: true }])
    }

    #[test]
    fn driver_and_model_never_use_each_other() {
        for [name, uses] in [["gic-driver", "vgic"], ["vgic", "gic-driver"]] {
            let strays = strays(&package(name, uses));
            assert_eq!(strays, [format!("{name}: may not use {uses} (dev)")]);
        }
    }

    #[test]
    fn a_package_outside_the_table_is_reported() {
        assert_eq!(strays(&package("stranger", "proptest")).len(), 1);
    }
}
