//! A matrix that is only read: packed row by row as it is loaded.

use super::super::array::Array;
use super::super::pool::Pool;
use super::super::zeros;
use super::layout::{Layout, PANEL};
use super::{float, pack};
use crate::contract::OpsError;
use crate::quant::WeightFormat;

/// (rows, cols) weights, in panels of 16 rows.
#[derive(Debug)]
pub struct Weight {
    /// Format of the file.
    pub format: WeightFormat,
    /// Layout of a panel; `None` for floating-point formats.
    pub layout: Option<Layout>,
    /// OC.
    pub rows: usize,
    /// C.
    pub cols: usize,
    panel_bytes: usize,
    panels: Array<u8>,
}

impl Weight {
    /// Room for all rows.
    pub fn new(format: WeightFormat, rows: usize, cols: usize, what: &str) -> Result<Weight, OpsError> {
        format.check_row(cols, what)?;
        let layout = Layout::of(format);
        let panel_bytes = match layout {
            Some(layout) => layout.panel_bytes(cols),
            None => float::panel_bytes(format, cols),
        };
        let len = rows.div_ceil(PANEL) * panel_bytes;
        Ok(Weight { format, layout, rows, cols, panel_bytes, panels: zeros(len, what)? })
    }

    /// Packs rows as they lie in a file.
    pub fn write_rows(&mut self, pool: &Pool, first: usize, bytes: &[u8]) {
        let row_bytes = self.format.row_bytes(self.cols).unwrap_or(0).max(1);
        let count = bytes.len() / row_bytes;
        assert!(bytes.len().is_multiple_of(row_bytes), "whole rows of {row_bytes} bytes");
        assert!(first <= self.rows && count <= self.rows - first, "rows {first}+{count} of {}", self.rows);
        if count == 0 || self.cols == 0 {
            return;
        }
        let (format, layout, cols) = (self.format, self.layout, self.cols);
        let (first_panel, end_panel) = (first / PANEL, (first + count).div_ceil(PANEL));
        let panels = &mut self.panels[first_panel * self.panel_bytes..end_panel * self.panel_bytes];
        let panels: Vec<_> = panels.chunks_exact_mut(self.panel_bytes).map(std::sync::Mutex::new).collect();
        pool.run(panels.len(), &|task| {
            // Each panel is one task's alone; the lock only says so to the compiler.
            let mut panel = panels[task].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let start = (first_panel + task) * PANEL;
            for row in start.max(first)..(start + PANEL).min(first + count) {
                let bytes = &bytes[(row - first) * row_bytes..][..row_bytes];
                match layout {
                    Some(layout) => pack::write_lane(format, layout, &mut panel, row % PANEL, bytes, cols),
                    None => float::write_lane(format, &mut panel, row % PANEL, bytes),
                }
            }
        });
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.panels.len() as u64
    }

    /// Panels.
    pub fn panel_count(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Panel `panel`.
    pub fn panel(&self, panel: usize) -> &[u8] {
        &self.panels[panel * self.panel_bytes..][..self.panel_bytes]
    }

    /// Row `row`, dequantised exactly.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let (panel, lane) = (self.panel(row / PANEL), row % PANEL);
        match self.layout {
            Some(layout) => pack::read_lane(self.format, layout, panel, lane, out),
            None => float::read_lane(self.format, panel, lane, out),
        }
    }
}
