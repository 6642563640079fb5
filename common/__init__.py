"""The pieces that every multimodal VAE of this repository is assembled from.

    encoder -> variational strategy -> variational posterior -> z -> decoder -> likelihood
    x_1..x_M     fuse the experts        q(z|x_S)            prior p(z)     log p(x_m|z)

Modules in import order: errors, distributed, torchvision_import, files, shards, data, experts, distributions, energy,
von_mises_fisher, subsets, encoders_decoders, variational_strategies, variational_posteriors, priors, likelihoods,
multimodal_vae, bounds, elbos, importance, objectives, estimators, metrics, mmvae_config, mmvae, models, checkpoints,
devices, options, objective_options, runs, reports, plots, maps, caches, parallel, image_caches, steps, streams,
training.
"""
