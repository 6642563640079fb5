"""The pieces that every multimodal VAE of this repository is assembled from; training/ trains, reports/ judges them.

    encoder -> variational strategy -> variational posterior -> z -> decoder -> likelihood
    x_1..x_M     fuse the experts        q(z|x_S)            prior p(z)     log p(x_m|z)

The contents, in reading order. A module imports only modules that stand above it (tests/repository/test_imports.py
reads this list):

The ground
    errors: the exception for mistakes that a user can fix
    io: files read and checked against types, one line for damaged ones, atomic writes, locked folders
    progress: progress bars, and messages that are shown once

Mathematics
    experts: products, quotients, barycentres and poolings of Gaussian experts, the density of a mixture
    distributions/: distributions that torch.distributions lacks, and what posteriors can do
        base: what every distribution of latents can do; independent latents
        location_scale: diagonal Gaussians by their log-variances, Laplace beside normal, spheres side by side
        von_mises_fisher: on the sphere, and the uniform one
        mixtures: mixtures whose samples have gradients, and MMVAE+'s
        unnormalised: a density up to its normaliser, by weighted samples
        energy: a product of Gaussians times exp(-E)
        hamiltonian: Hamiltonian Monte Carlo
        flows: Gaussians through normalizing flows, and JNF's posterior

Data
    data/: from files to batches
        arrays: numpy's files, cached with their options or mapped into memory
        files: finding, downloading and unpacking a dataset's files, and whether they are the published ones
        image_caches: images as Pillow reads them, decoded once and kept
        batches: examples in memory, and which modality each has
        records: results whose values are items and attributes
        splits: what is held out, and which examples keep their pairing
        scales: tables in units of their columns' standard deviations
        torchvision_import: torchvision beside any build of torch

The pieces
    convolutions: transposed ones that avoid what is slow on a CPU
    encoders_decoders: layers, shared and stacked networks, and outputs where a modality is present
    subsets: which modalities an ELBO's terms are given
    variational_strategies: the experts' parameters in, those of q(z|x_S) out
    pooling_strategies: Hoelder pooling, Wasserstein barycentres, dependent experts
    variational_posteriors: parameters in, q(z|x_S) out
    private_latents: a modality's own latents, appended to the parameters of q(z|x_S) and found in z
    priors: p(z)
    likelihoods: a decoder's output in, p(x_m|z) out
    values: what values a modality can have

The model
    modalities: a modality's columns of the mask, decoder, weight, and part of z
    multimodal_vae: the one class, six pieces and the modalities that they serve
    plain_pieces: the model of six pieces in a plain ModuleDict
    model_data: the modalities of the data that a model has, checked

Execution
    execution/: how it is computed
        processes: several processes at one run
        random_states: saving and restoring random states, draws that leave them alone
        rows: the grid of terms and examples that an objective scores
        score: log p(x_m|z) of rows, with sets, stacks, missing values, batch norm and the memory
        weighted: the backward pass that decodes with gradients only what counts
        cuda_graphs: training steps as CUDA graphs
        devices: device, precision, and the settings of a CPU

Objectives
    objectives/: the bounds of the papers
        base: a bound, its terms and its loss
        elbo: the ELBO, and MVAE's sum of ELBOs
        crossed: DMVAE and TELBO, sums of ELBOs that differ in what they score or train
        mixture: ELBOs of posteriors that are mixtures, CoDE-VAE, MMVM and mmJSD
        importance: IWAE, STL and DReG, bounds by importance weights and their gradients
        disentangled: IDMVAE, MMVAE+'s bound and losses that keep shared and private latents apart
        energy: IWAE's bound for energy-based posteriors
        chain_rule: the modalities one after the other
        joint: JMVAE, JNF, MVTCAE and CRMVAE, with KLs between the joint and the single posteriors

By name
    models/: models and objectives by name
        families: posterior families, and the prior, product and density of each
        fusions: ways to fuse their experts, for which families each exists, and the model of a fusion and a family
        choices: the models that --model names, and building those of two modalities
        objectives: the objectives that --obj names, and what exists for which fusion

What is asked of a trained model
    authors_files: the layouts of the original authors' files
    checkpoints: trained models on disk, from our files and from the original authors'
    latent_priors: densities of latents, a flow and a score network, and fitting them
    fitted_priors: such a density of a trained model's latents, and its file
    estimators: log p by importance sampling
"""

import os
import sys
from pathlib import Path

# Waiting threads of GNU's OpenMP, which torch's wheels hold, spin for milliseconds: on a busy machine two threads then
# train several times slower than one. It reads the variable when torch is loaded. 10,000 rounds take 60 microseconds.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

ROOT = Path(__file__).parents[1]

# after the script's own folder and before site-packages, where PyPI's mnist would hide ours
sys.path.insert(1, str(ROOT))

if sys.stderr.isatty() and ROOT in Path(sys.argv[0]).resolve().parents[:2]:
    print("loading PyTorch", file=sys.stderr)  # seconds on a busy machine
