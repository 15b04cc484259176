//! What is sent: requests whose every byte follows from a seed and a number, so that the checker
//! can make them again instead of remembering them.

use std::fmt::Write as _;

/// A small generator of our own (SplitMix64), so that a printed seed means the same for ever.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// True this many times of a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Times that clients send: none, ordinary ones, the ends of what can be written, and nonsense.
const TIMES: [&str; 8] = [
    "",
    "",
    "",
    r#""timestamp":"2026-01-02T03:04:05.678Z","#,
    r#""timestamp":"1970-01-01T00:00:00Z","#,
    r#""timestamp":"2100-12-31T23:59:59.999999+02:00","#,
    r#""timestamp":0,"#,
    r#""timestamp":"the day before yesterday","#,
];
const LEVELS: [&str; 5] = ["debug", "info", "warn", "error", "fatal"];
const WORDS: [&str; 8] = [
    "payment declined",
    "retrying in 200 ms",
    "größer als erlaubt",
    "cache miss",
    "täglich 日本語",
    "GET /cart 200",
    "disk 91 %",
    "a \\\"quoted\\\" word",
];

/// How large requests are.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Characters of incompressible text in each event.
    pub padding: usize,
    /// Most events of a request.
    pub most_events: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { padding: 0, most_events: 300 }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its number in this run.
    pub number: u64,
    /// Which tenant sends it.
    pub tenant: usize,
    /// Its `Idempotency-Key`, if it has one.
    pub key: Option<String>,
    /// Its lines, without line ends.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it can't be an event.
    pub broken: bool,
}

impl Request {
    /// Request `number` of the run with this seed, sent by one of `tenants`.
    pub fn new(seed: u64, number: u64, tenants: &[String], shape: Shape) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ number);
        let tenant = dice.below(tenants.len() as u64) as usize;
        let events = match dice.below(10) {
            0..=2 => 1,
            3..=7 => 2 + dice.below(shape.most_events / 6),
            _ => shape.most_events / 3 + dice.below(shape.most_events * 2 / 3),
        };
        let key = dice.percent(40).then(|| format!("{seed:x}-{number}"));
        // A body without a single good line would be refused, so the first is always good.
        let broken = (events > 1 && dice.percent(5)).then(|| 1 + dice.below(events - 1));
        let lines = (0..events)
            .map(|position| match Some(position) == broken {
                true => {
                    Line { bytes: format!("not json {number}/{position} of {}", tenants[tenant]).into(), broken: true }
                }
                false => {
                    Line { bytes: event(&mut dice, number, position, &tenants[tenant], shape.padding), broken: false }
                }
            })
            .collect();
        Self { number, tenant, key, lines }
    }

    /// Its body: lines of JSON.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for line in &self.lines {
            body.extend_from_slice(&line.bytes);
            body.push(b'\n');
        }
        body
    }
}

fn event(dice: &mut Dice, number: u64, position: u64, tenant: &str, padding: usize) -> Vec<u8> {
    let mut pick = |words: &[&'static str]| words[dice.below(words.len() as u64) as usize];
    let (time, level, words) = (pick(&TIMES), pick(&LEVELS), pick(&WORDS));
    // Spaces where JSON allows them: the bytes must come back as they were sent.
    let space = &"   "[..dice.below(3) as usize];
    let mut line = format!(
        r#"{{{time}"service":"chaos",{space}"level":{space}"{level}","message":"event {number}/{position} of {tenant}: {words}","attributes":{{"n":{position},"pad":""#
    );
    while line.len() < padding {
        // Writing to a string can't fail.
        write!(line, "{:016x}", dice.roll()).ok();
    }
    line.push_str("\"}}");
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_made_again_from_its_seed_and_no_two_lines_are_alike() {
        let tenants = ["a".to_owned(), "b".to_owned()];
        let make = |number| Request::new(7, number, &tenants, Shape::default());
        let mut seen = std::collections::HashSet::new();
        let (mut keyed, mut broken) = (0, 0);
        for number in 0..300 {
            let request = make(number);
            assert_eq!(request.body(), make(number).body());
            assert!(!request.lines[0].broken);
            keyed += usize::from(request.key.is_some());
            for line in request.lines {
                broken += usize::from(line.broken);
                let json = serde_json::from_slice::<serde_json::Value>(&line.bytes);
                assert_eq!(json.is_err(), line.broken, "{}", String::from_utf8_lossy(&line.bytes));
                assert!(seen.insert(line.bytes));
            }
        }
        assert!(keyed > 50 && broken > 3, "{keyed} {broken}");
    }
}
