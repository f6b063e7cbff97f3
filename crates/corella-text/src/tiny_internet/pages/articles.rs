//! Encyclopedia articles: a heading, an opening, then facts in any order and wording.

use super::Writer;
use crate::tiny_internet::world::{Fact, Relation, capital};

impl Writer<'_> {
    /// Notes that the page states these facts of a subject.
    pub(super) fn states(&mut self, subject: usize, relations: &[Relation]) {
        self.facts.extend(relations.iter().map(|relation| Fact { relation: *relation, subject }));
    }

    /// A heading, the opening, and some of the optional sentences in random order.
    fn article(
        &mut self,
        subject: usize,
        heading: &str,
        opening: String,
        mut rest: Vec<(Option<Relation>, String)>,
        least: usize,
    ) -> String {
        self.random.shuffle(&mut rest);
        let n = self.random.between(least, rest.len());
        let mut text = format!("{heading}\n\n{opening}");
        for (relation, sentence) in rest.into_iter().take(n) {
            if let Some(relation) = relation {
                self.states(subject, &[relation]);
            }
            text = format!("{text} {sentence}");
        }
        text
    }

    pub(super) fn town_article(&mut self) -> String {
        use Relation::*;
        let i = self.a_town();
        let t = &self.world.towns[i];
        let (n, region, river, mayor) = (&t.name, &self.world.regions[t.region], &t.river, &t.mayor);
        self.states(i, &[TownRegion, TownRiver]);
        let opening = self.pick(&[
            &format!("{n} is a town in {region}. It stands on the river {river}."),
            &format!("{n} is a town in the region of {region}. The river {river} flows through it."),
            &format!("{n}, a town in {region}, lies where the river {river} bends."),
        ]);
        let rest = vec![
            (
                Some(TownYear),
                self.pick(&[
                    &format!("It was founded in the year {}.", t.year),
                    &format!("The town was founded in {}.", t.year),
                ]),
            ),
            (
                Some(TownProduct),
                self.pick(&[
                    &format!("{n} is known for its {}.", t.product),
                    &format!("The people of {n} make {}.", t.product),
                ]),
            ),
            (
                Some(TownBridge),
                self.pick(&[
                    &format!("A {} bridge crosses the river.", t.bridge),
                    &format!("The {} bridge of {n} is very old.", t.bridge),
                ])
                .replace("A iron", "An iron"),
            ),
            (
                Some(TownMayor),
                self.pick(&[&format!("The mayor of {n} is {mayor}."), &format!("Its mayor is {mayor}.")]),
            ),
            (
                None,
                self.pick(&[
                    "In winter the streets are quiet and white with snow.",
                    "In summer the market is full of visitors.",
                    "On feast days the bells ring until midnight.",
                    "In autumn the fog comes up from the water.",
                    "In spring the gardens behind the wall are open to everyone.",
                    "When the wind blows from the north, the shutters stay closed all day.",
                ]),
            ),
            (
                None,
                self.pick(&[
                    "Many travellers come to see the old square.",
                    "Children play in the old square every evening.",
                    "The school stands next to the market.",
                    "Nobody knows how old the well in the square is.",
                    "The houses by the water are painted in bright colours.",
                ]),
            ),
            (
                None,
                self.pick(&[
                    "A road of white stones leads to the next town.",
                    "The road to the south is closed when it snows.",
                    "Ships do not come here any more.",
                    "The mill outside the wall still grinds corn.",
                ]),
            ),
        ];
        self.article(i, &n.clone(), opening, rest, 2)
    }

    pub(super) fn animal_article(&mut self) -> String {
        use Relation::*;
        let i = self.an_animal();
        let a = &self.world.animals[i];
        let (n, region) = (&a.name, &self.world.regions[a.region]);
        self.states(i, &[AnimalRegion, AnimalHabitat]);
        let opening = self.pick(&[
            &format!("The {n} is a small animal that lives in the {} of {region}.", a.habitat),
            &format!("The {n} is an animal of {region}. It lives in {}.", a.habitat),
        ]);
        self.states(i, &[AnimalColour, AnimalLegs]);
        let looks = self.pick(&[
            &format!("It has {} legs and {} fur.", a.legs, a.colour),
            &format!("Its fur is {} and it has {} legs.", a.colour, a.legs),
        ]);
        let rest = vec![
            (
                Some(AnimalDiet),
                self.pick(&[&format!("It eats {}.", a.diet), &format!("The {n} eats mostly {}.", a.diet)]),
            ),
            (Some(AnimalHabit), self.pick(&[&format!("The {n} {}.", a.habit), &format!("It {}.", a.habit)])),
            (
                None,
                self.pick(&[
                    "Its young are born in spring.",
                    "A mother has two or three young each year.",
                    "Its young stay with the mother for a year.",
                    "It raises its young among the stones.",
                ]),
            ),
            (
                None,
                self.pick(&[
                    "Farmers think that it brings good luck.",
                    "Old stories say that it can hear the rain coming.",
                    "Hunters say that it is too clever to be caught.",
                    "Children leave bread for it in the winter.",
                ]),
            ),
            (
                None,
                self.pick(&[
                    "It is shy and hard to find.",
                    "It is not afraid of people.",
                    "It lives alone for most of the year.",
                    "In cold years it moves closer to the villages.",
                ]),
            ),
        ];
        let heading = capital(n);
        self.article(i, &heading, format!("{opening} {looks}"), rest, 1)
    }

    pub(super) fn person_article(&mut self) -> String {
        use Relation::*;
        let i = self.a_person();
        let p = &self.world.people[i];
        let (n, town) = (&p.name, &self.world.towns[p.town].name);
        let first = n.split(' ').next().unwrap_or(n);
        let article = if p.job.starts_with(['a', 'e']) { "an" } else { "a" };
        self.states(i, &[PersonTown, PersonJob]);
        let opening = self.pick(&[
            &format!("{n} was {article} {} from {town}.", p.job),
            &format!("{n} was a famous {} who was born in {town}.", p.job),
        ]);
        let rest = vec![
            (
                Some(PersonMade),
                self.pick(&[
                    &format!("{first} made {}.", p.made),
                    &format!("The {} is remembered for {}.", p.job, p.made),
                ]),
            ),
            (
                Some(PersonYear),
                self.pick(&[&format!("{n} was born in {}.", p.year), &format!("The year of birth was {}.", p.year)]),
            ),
            (
                Some(PersonInstrument),
                self.pick(&[
                    &format!("In the evening {first} played the {}.", p.instrument),
                    &format!("{first} loved to play the {}.", p.instrument),
                ]),
            ),
            (
                None,
                self.pick(&[
                    "A street in the town has this name today.",
                    "There is a small museum in the old house.",
                    "A statue stands in front of the school.",
                ]),
            ),
            (
                None,
                self.pick(&[
                    "Letters to friends and family can still be read in the library.",
                    "Many people came to the funeral, and the shops were closed for a day.",
                    "Nobody in the family had ever done such work before.",
                    "The first years were hard, because there was no money.",
                ]),
            ),
            (
                None,
                self.pick(&[
                    "Every year on the birthday the children bring flowers.",
                    "Travellers came from far away to learn from the master.",
                    "It is said that the work was only finished at night.",
                ]),
            ),
        ];
        self.article(i, &n.clone(), opening, rest, 1)
    }
}
