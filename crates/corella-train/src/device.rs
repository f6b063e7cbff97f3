//! What a run is computed on, and what it has taken of it so far.

use serde::{Deserialize, Serialize};

use crate::plan::CostPlan;

/// A device, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Device {
    /// Cards; 0 on a processor.
    pub cards: u32,
    /// Operations per second that it can do at most in the run's number format.
    pub peak_flops: Option<f64>,
    /// Watts that it takes at most, with the machine around it.
    pub watts: Option<f64>,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Hours times cards, on cards.
    pub gpu_hours: Option<f64>,
    /// Energy, where the plan has the power; else at most this, where the device's is known.
    pub energy_kwh: Option<f64>,
    /// Dollars, where the plan has a price.
    pub dollars: Option<f64>,
}

impl Device {
    /// What `seconds` on this device take.
    pub fn usage(&self, cost: &CostPlan, seconds: f64) -> Usage {
        let hours = seconds / 3600.0;
        Usage {
            gpu_hours: (self.cards > 0).then(|| f64::from(self.cards) * hours),
            energy_kwh: cost.watts.or(self.watts).map(|watts| watts * hours / 1000.0),
            dollars: cost.price_per_hour.map(|price| price * hours),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_counted_by_cards_and_hours_and_the_plans_power_goes_first() {
        let device = Device { cards: 8, peak_flops: None, watts: Some(10_000.0) };
        let plain = device.usage(&CostPlan::default(), 1800.0);
        assert_eq!(plain, Usage { gpu_hours: Some(4.0), energy_kwh: Some(5.0), dollars: None });
        let cost = CostPlan { price_per_hour: Some(24.0), watts: Some(6000.0) };
        let paid = device.usage(&cost, 1800.0);
        assert_eq!(paid, Usage { gpu_hours: Some(4.0), energy_kwh: Some(3.0), dollars: Some(12.0) });
        assert_eq!(Device::default().usage(&CostPlan::default(), 1800.0), Usage::default());
    }
}
