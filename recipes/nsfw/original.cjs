// The original, in its own framework.
//   node original.cjs unpack FOLDER     writes model.json and weights.bin: the package keeps them inside of scripts
//   node original.cjs look FILE         FILE: pictures of 224 x 224 x 3 bytes; prints five probabilities of each
const fs = require("fs"), path = require("path");
const models = path.join(path.dirname(require.resolve("nsfwjs")), "../models/mobilenet_v2_mid");
const graph = require(path.join(models, "model.min.js"));
const weights = Buffer.concat(graph.weightsManifest.flatMap(({paths}) => paths).map(
  (name) => Buffer.from(require(path.join(models, `${name}.min.js`)), "base64")));

async function look(file) {
  const tf = require("@tensorflow/tfjs");
  const specs = graph.weightsManifest.flatMap((group) => group.weights);
  const model = await tf.loadGraphModel({load: async () => ({
    modelTopology: graph.modelTopology, weightSpecs: specs, format: graph.format,
    weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.length)})});
  const x = tf.tensor(new Uint8Array(fs.readFileSync(file)), [fs.statSync(file).size / (224 * 224 * 3), 224, 224, 3]);
  return model.predict(x.toFloat().div(255)).array();
}

const [what, where] = process.argv.slice(2);
if (what === "unpack") {
  fs.writeFileSync(path.join(where, "model.json"), JSON.stringify(graph));
  fs.writeFileSync(path.join(where, "weights.bin"), weights);
} else {
  look(where).then((found) => console.log(JSON.stringify(found)));
}
