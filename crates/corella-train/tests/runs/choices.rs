//! What a backend chose by measuring goes into the checkpoints of a run, and back into the backend before it goes on.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::folder;
use crate::common::small_run::{Watch, run, state};
use corella_model::{AdamW, BatchShape, Choices, ModelError, ParamInfo, ParamPart, TextModel, TrainModel};
use corella_train::{Run, train};

/// A model on a backend that chooses by measuring: which choices it made, and, behind a lock, which it was given, with the updates
/// that it had made then.
struct Choosing {
    model: Box<dyn TrainModel>,
    made: Choices,
    given: Arc<Mutex<Vec<(Choices, usize)>>>,
    updates: usize,
}

impl TrainModel for Choosing {
    fn choices(&self) -> Choices {
        self.made.clone()
    }
    fn take_choices(&mut self, choices: &Choices) {
        self.given.lock().expect("whole").push((choices.clone(), self.updates));
    }
    fn adamw(&mut self, hyper: AdamW) {
        self.updates += 1;
        self.model.adamw(hyper);
    }
    fn params(&self) -> &[ParamInfo] {
        self.model.params()
    }
    fn batch_shape(&self) -> BatchShape {
        self.model.batch_shape()
    }
    fn backend_name(&self) -> String {
        self.model.backend_name()
    }
    fn forward_backward(&mut self, inputs: &[u32], targets: &[u32], scale: f32) -> f64 {
        self.model.forward_backward(inputs, targets, scale)
    }
    fn forward_time(&self) -> Duration {
        self.model.forward_time()
    }
    fn loss_sum(&mut self, inputs: &[u32], targets: &[u32]) -> f64 {
        self.model.loss_sum(inputs, targets)
    }
    fn zero_grad(&mut self) {
        self.model.zero_grad();
    }
    fn grad_norm(&self) -> f64 {
        self.model.grad_norm()
    }
    fn read(&self, index: usize, part: ParamPart) -> Vec<f32> {
        self.model.read(index, part)
    }
    fn write(&mut self, index: usize, part: ParamPart, values: &[f32]) {
        self.model.write(index, part, values);
    }
    fn text_model(&mut self) -> Result<Box<dyn TextModel + '_>, ModelError> {
        self.model.text_model()
    }
}

#[test]
fn a_run_that_goes_on_gives_the_backend_what_it_had_chosen() {
    let dir = folder("choices");
    let made = Choices::from([("a card, m 64 n 64".to_owned(), "7 8 9".to_owned())]);
    let go = |made: &Choices, resume: bool, stop_after: u64| {
        let given = Arc::default();
        let Run { model, .. } = run(&dir, resume);
        let model = Box::new(Choosing { model, made: made.clone(), given: Arc::clone(&given), updates: 0 });
        let stop = AtomicBool::new(false);
        let mut watch = Watch { losses: Vec::new(), stop_after, stop: &stop };
        train(&mut Run { model, ..run(&dir, resume) }, &mut watch, &stop).expect("trains");
        let given: Vec<(Choices, usize)> = given.lock().expect("whole").clone();
        given
    };
    assert!(go(&made, false, 7).is_empty(), "nothing comes before the first checkpoint");
    assert_eq!(state(&dir, 7)["choices"]["a card, m 64 n 64"], "7 8 9");
    // Before anything is computed.
    assert_eq!(go(&Choices::new(), true, 9), [(made, 0)]);
    assert_eq!(state(&dir, 9)["choices"], serde_json::json!({}));
}
