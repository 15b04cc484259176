//! What a word is, to us and to the index: the same, in all scripts.

use anyhow::{Context, ensure};
use opensearch::indices::IndicesAnalyzeParts;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::house::House;

/// Texts in all; each has up to [`PIECES`] pieces.
const TEXTS: usize = 20_000;
const PIECES: usize = 12;
/// Texts in one request: the index joins them, so each is fenced.
const AT_ONCE: usize = 100;
/// Stands between two texts; no script has it inside of a word.
const FENCE: &str = " zzfencezz ";

/// Ranges of characters, some of each kind that has rules of its own.
const RANGES: &[(u32, u32)] = &[
    (0x20, 0x7e),
    (0x61, 0x7a),
    (0x30, 0x39),
    (0xa0, 0xff),
    (0x100, 0x17f),
    (0x300, 0x30f),
    (0x370, 0x3ff),
    (0x400, 0x44f),
    (0x531, 0x556),
    (0x5d0, 0x5ea),
    (0x5f3, 0x5f4),
    (0x610, 0x64a),
    (0x660, 0x669),
    (0x904, 0x94d),
    (0x966, 0x96f),
    (0xe01, 0xe5b),
    (0xe81, 0xedd),
    (0x1000, 0x1049),
    (0x10d0, 0x10fa),
    (0x1100, 0x11ff),
    (0x1200, 0x1248),
    (0x13a0, 0x13f4),
    (0x1780, 0x17e9),
    (0x1e00, 0x1eff),
    (0x2010, 0x2044),
    (0x2070, 0x209c),
    (0x20a0, 0x20bf),
    (0x2100, 0x214f),
    (0x2160, 0x2188),
    (0x2190, 0x21ff),
    (0x2460, 0x24ff),
    (0x2600, 0x27bf),
    (0x3001, 0x3020),
    (0x3041, 0x309f),
    (0x30a0, 0x30ff),
    (0x3105, 0x312f),
    (0x3131, 0x318e),
    (0x3400, 0x3440),
    (0x4e00, 0x4eff),
    (0xac00, 0xad00),
    (0xff01, 0xffdc),
    (0x1d400, 0x1d7ff),
    (0x1f1e6, 0x1f1ff),
    (0x1f300, 0x1f64f),
    (0x1f900, 0x1f97f),
    (0x20000, 0x20040),
];

/// Pieces that only chance would not make.
const PHRASES: &[&str] = &[
    "java.lang.NullPointerException: it's 3,000.5",
    "user_id=42;a.b_c:d'e",
    "foo-bar a/b x=1 1,2 1;2 1:2 a,b",
    "👨‍👩‍👧‍👦",
    "👍🏽",
    "🇩🇪🇫🇷🇮",
    "1️⃣#️⃣*⃣",
    "©️ ® ™",
    "❤️",
    "İSTANBUL ΌΣΟΣ ẞ ǅ",
    "カタカナ・ひらがな漢字ーー",
    "สวัสดีครับ",
    "a\u{200d}b",
    "a\u{ad}b",
    "\u{feff}x",
    "٣٫١٤",
    "א\"א",
    "ﬁ ﬀ Ⅷ ① ² ½",
];

#[tokio::test]
async fn a_word_is_what_the_index_takes_for_one() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    let stored = house.store(own, &["{\"message\":\"any\"}\n".to_owned()]).await?;
    house.index(own, &stored).await?;
    let mut random = StdRng::seed_from_u64(19);
    let texts: Vec<String> = (0..TEXTS).map(|_| text(&mut random)).collect();
    let mut differing = Vec::new();
    for some in texts.chunks(AT_ONCE) {
        let theirs = analyzed(&house, &stored.index_name, some).await?;
        for (text, theirs) in some.iter().zip(theirs) {
            let ours = query::words::words(text);
            if ours != theirs {
                differing.push(format!("{text:?}\n  the index {theirs:?}\n  we        {ours:?}"));
            }
        }
    }
    let shown = differing.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    ensure!(differing.is_empty(), "{} of {TEXTS} differ:\n{shown}", differing.len());
    house.retire().await
}

fn text(random: &mut StdRng) -> String {
    let pieces = random.random_range(1..=PIECES);
    // One range at a time and its neighbours in the table, so that words of one script come about.
    let home = random.random_range(0..RANGES.len());
    (0..pieces).map(|_| piece(random, home)).collect()
}

fn piece(random: &mut StdRng, home: usize) -> String {
    match random.random_range(0..12) {
        0 => PHRASES[random.random_range(0..PHRASES.len())].to_owned(),
        1 => " ".to_owned(),
        2 => "._:',;-/@\u{200d}\u{fe0f}\u{2019}\u{b7}".chars().nth(random.random_range(0..13)).into_iter().collect(),
        3..=8 => character(random, RANGES[home]),
        _ => {
            let range = RANGES[random.random_range(0..RANGES.len())];
            character(random, range)
        }
    }
}

fn character(random: &mut StdRng, (first, last): (u32, u32)) -> String {
    char::from_u32(random.random_range(first..=last)).into_iter().collect()
}

/// The words of each text, as the index has them.
async fn analyzed(house: &House, index: &str, texts: &[String]) -> anyhow::Result<Vec<Vec<String>>> {
    let client = house.stores.opensearch()?;
    let indices = client.indices();
    let body = json!({"analyzer": "lh_text", "text": texts.join(FENCE)});
    let answer = indices.analyze(IndicesAnalyzeParts::Index(index)).body(body).send().await?.error_for_status_code()?;
    let answer: Value = answer.json().await?;
    let tokens = answer["tokens"].as_array().context("tokens")?.iter().filter_map(|token| token["token"].as_str());
    let tokens: Vec<String> = tokens.map(str::to_owned).collect();
    let words: Vec<_> = tokens.split(|token| token == FENCE.trim()).map(<[String]>::to_vec).collect();
    ensure!(words.len() == texts.len(), "{} texts became {}", texts.len(), words.len());
    Ok(words)
}
