//! Explanations that start at a doorbell or at a line.

use super::{Explainer, Passed, explained};
use crate::config::{ItsConfig, V2mConfig};
use crate::frames::its::Its;
use crate::vgic::{FrameAt, Vgic};
use gic_arch::{IntId, Lpi, gicd, gicr, gits, v2m};
use msi_types::explain::{ExplainInput, Explanation, Fact, Obstacle};
use msi_types::{Cpu, DeviceId, EventId, HwIrq, Line, MsiMessage};

impl ExplainInput for Vgic {
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation {
        explained(self, |explainer| explainer.follow_message(sender, message))
    }

    fn explain_line(&self, line: Line) -> Explanation {
        explained(self, |explainer| match line {
            Line::Spi(number) => explainer.explain_wired(None, IntId::new(number)),
            Line::Ppi { cpu, intid } => explainer.explain_wired(Some(cpu), IntId::new(intid)),
        })
    }
}

/// An address at which the machine receives messages.
enum Doorbell<'a> {
    Its(&'a Its),
    MessageBasedSpi,
    DirectLpi(Cpu),
    V2m(&'a V2mConfig),
}

impl<'a> Explainer<'a> {
    fn follow_message(&mut self, sender: Option<DeviceId>, message: MsiMessage) -> Passed {
        let MsiMessage { address, data } = message;
        let unknown = Obstacle::NoSuchInterrupt { interrupt: HwIrq::new(data) };
        let doorbell = self
            .doorbell_at(address)
            .ok_or(Obstacle::NoDoorbell { address, doorbell: self.any_doorbell() })?;
        self.note(Fact::Doorbell(address));
        match doorbell {
            Doorbell::Its(its) => {
                let device = sender.ok_or(Obstacle::NoIdentity { address })?;
                self.explain_event(its, device, EventId::new(data))
            }
            Doorbell::MessageBasedSpi => {
                let spi = Some(IntId::new(data)).filter(|spi| spi.is_shared());
                let spi = spi.ok_or(unknown)?;
                self.note(Fact::MessageIntid(HwIrq::new(spi.get())));
                self.explain_message_spi(spi)
            }
            Doorbell::DirectLpi(cpu) => {
                let lpi = Lpi::try_from(data).map_err(|_| unknown)?;
                self.note(Fact::MessageIntid(HwIrq::new(data)));
                self.explain_lpi(cpu, lpi)
            }
            Doorbell::V2m(frame) => {
                let spis = frame.spis();
                if !spis.contains(&data) {
                    let [interrupt, first, last] = [data, spis.start, spis.end - 1].map(HwIrq::new);
                    return Err(Obstacle::NotOfDoorbell { interrupt, first, last });
                }
                let spi = IntId::new(data);
                self.note(Fact::MessageIntid(HwIrq::new(spi.get())));
                let state = self.gic.wired.visible(Cpu::new(0), spi);
                if state.is_some_and(|state| !state.edge()) {
                    self.hinder(Obstacle::LevelSensitive { interrupt: HwIrq::new(spi.get()) });
                }
                self.explain_message_spi(spi)
            }
        }
    }

    fn doorbell_at(&self, address: u64) -> Option<Doorbell<'a>> {
        let (config, (frame, offset)) = (&self.gic.config, self.gic.frame_at(address)?);
        let (setspi, setlpi) = (gicd::SETSPI_NSR.offset(), gicr::SETLPIR.offset());
        match frame {
            FrameAt::Its(its) => {
                (offset == gits::TRANSLATER.offset()).then_some(Doorbell::Its(its))
            }
            FrameAt::Distributor | FrameAt::MbiAlias(_) => {
                (config.message_based_spis && offset == setspi).then_some(Doorbell::MessageBasedSpi)
            }
            FrameAt::Redistributor(cpu) => {
                (config.direct_lpi && offset == setlpi).then_some(Doorbell::DirectLpi(cpu))
            }
            FrameAt::V2m(frame) => {
                (offset == v2m::SETSPI_NS.offset()).then_some(Doorbell::V2m(frame))
            }
            FrameAt::Empty => None,
        }
    }

    /// Returns the address of a doorbell, if the machine has any.
    fn any_doorbell(&self) -> Option<u64> {
        let config = &self.gic.config;
        let mbi = || {
            let frame = config.mbi_alias.unwrap_or(config.distributor);
            config.message_based_spis.then_some(frame + u64::from(gicd::SETSPI_NSR.offset()))
        };
        let v2m = || {
            let frame = config.v2m.first()?;
            Some(frame.message(IntId::new(frame.first_spi))?.address)
        };
        config.its.first().map(ItsConfig::doorbell).or_else(v2m).or_else(mbi)
    }
}
