// node embed.mjs FOLDER NAME DTYPE SENTENCES OUT: embeds a JSON list of sentences with transformers.js.
import fs from "node:fs";
import { env, pipeline } from "@huggingface/transformers";

const [folder, name, dtype, sentences, out] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder;
const embed = await pipeline("feature-extraction", name, { dtype });
const found = await embed(JSON.parse(fs.readFileSync(sentences)), { pooling: "mean", normalize: true });
fs.writeFileSync(out, JSON.stringify(found.tolist()));
